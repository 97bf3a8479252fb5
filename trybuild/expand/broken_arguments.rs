#[singleton(ap = "a", ttl = 0, name = "{tennant}", wait)]
async fn broken(tenant: u32) -> u32 {
    tenant
}
