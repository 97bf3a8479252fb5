#[singleton(app = "a", on_busy = Err(Mine::Busy))]
async fn expression() -> Result<u32, Mine> {
    Ok(1)
}

#[singleton(app = "b", on_busy = skip)]
fn skip() -> Result<(), Mine> {
    Ok(())
}
