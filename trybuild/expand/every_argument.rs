#[singleton(
    app = "billing",
    name = "tenant-{tenant:04}-{{braces}}",
    ttl = 90,
    wait = "10s",
    at_least = "30s",
    at_most = limits.at_most,
    remember = "30d",
    reentrant,
    on_busy = error,
    on_lost = finish,
    locker = limits.locker,
    guard = held,
    crate = crate::lock,
)]
async fn bill(tenant: u32, limits: &Limits) -> Result<(), Error> {
    held.ensure_held()
}

#[singleton(key = "{{tag}}:whole", wait = forever)]
fn by_key() {}
