#[singleton(app = "reports", ttl = "1500ms")]
fn report(day: &Date, mut tries: u32) -> Option<u32> {
    tries += 1;
    Some(tries)
}
