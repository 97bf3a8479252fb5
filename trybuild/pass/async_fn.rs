#![deny(warnings)]
use applock::singleton;

#[singleton(app = "reports", ttl = 60)]
async fn unit() {}

#[singleton(app = "reports", name = "t-{tenant}")]
pub async fn with_args(tenant: u32, mut items: Vec<u8>) -> Result<usize, applock::Error> {
    items.push(1);
    if items.len() > 5 {
        return Ok(0);
    }
    Ok(items.len())
}

#[singleton(app = "reports")]
fn sync_fn(mut n: u32, s: &mut String) -> Option<&mut String> {
    n += 1;
    s.push_str(&n.to_string());
    Some(s)
}

#[tokio::main]
async fn main() {
    unit().await;
    assert_eq!(with_args(1, vec![]).await.unwrap(), 1);
    assert_eq!(sync_fn(1, &mut String::new()).unwrap(), "2");
}
