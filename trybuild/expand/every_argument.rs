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

#[singleton(
    app = "billing",
    name = "tenant-{tenant}",
    tick = fired_at,
    retry = failed,
)]
async fn invoices(tenant: u32, fired_at: SystemTime) -> Result<(), Error> {
    Ok(())
}

#[singleton(app = "billing", every = "1h", retry = failed)]
fn hourly(seconds: u64) -> Result<(), Error> {
    work(seconds)?;
    Ok(())
}

#[singleton(key = "{{tag}}:whole", wait = forever)]
fn by_key() {}
