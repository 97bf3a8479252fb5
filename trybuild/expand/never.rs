#[singleton(app = "a", wait = forever, on_busy = exit(1))]
async fn leader() -> ! {
    loop {
        step().await;
    }
}

#[singleton(app = "b", on_busy = panic!("busy"))]
fn leader_sync() -> ! {
    loop {
        step();
    }
}
