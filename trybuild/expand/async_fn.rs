/// Documented.
#[singleton(app = "reports", ttl = 60)]
#[must_use]
pub async fn report(day: Date, mut tries: u32) -> anyhow::Result<()> {
    tries += 1;
    send(day, tries).await?;
    Ok(())
}
