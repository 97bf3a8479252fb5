#[singleton(app = "a", on_busy = Vec::new().into_iter())]
async fn whole(items: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    items
}

#[singleton(app = "b")]
fn inside() -> Result<impl Iterator<Item = u32>, Error> {
    Ok(0..1)
}

#[singleton(app = "c", on_busy = same)]
fn closure() -> impl Fn(&str) -> &str {
    |text| text
}
