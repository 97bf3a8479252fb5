#[singleton(app = "reports")]
async fn report() {
    send().await;
}
