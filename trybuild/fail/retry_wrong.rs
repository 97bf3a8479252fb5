use applock::singleton;

#[singleton(app = "reports", retry = failed)]
async fn no_ticks() {}

#[singleton(app = "reports", every = "1h", retry = 3)]
async fn number() {}

#[singleton(app = "reports", every = "1h", retry = "failed")]
async fn quoted() {}

#[singleton(app = "reports", every = "1h", retries = failed)]
async fn misspelt() {}

#[singleton(app = "reports", every = "1h", retry)]
async fn no_value() {}

fn main() {}
