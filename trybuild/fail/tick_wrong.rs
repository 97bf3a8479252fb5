use applock::singleton;

#[singleton(app = "reports", tick = 7)]
async fn constant() {}

#[singleton(app = "reports", tick = "1h")]
async fn length() {}

#[singleton(app = "reports", every = "1h", tick = fired_at)]
async fn both(fired_at: u64) {
    let _ = fired_at;
}

#[singleton(app = "reports", tick = fired_at)]
async fn no_number(fired_at: &str) {
    let _ = fired_at;
}

fn main() {}
