use applock::singleton;

#[singleton(app = "reports", every = 0)]
async fn zero() {}

#[singleton(app = "reports", every = "50ms")]
async fn too_short() {}

#[singleton(app = "reports", every = "6y")]
async fn too_long() {}

#[singleton(app = "reports", every = "hourly")]
async fn no_length() {}

#[singleton(app = "reports", every = forever)]
async fn forever() {}

fn main() {}
