/// Kept.
#[inline]
#[singleton(app = "a")]
#[tokio::main(flavor = "current_thread")]
async fn main(#[allow(unused_variables)] unused: u32, #[expect(unused_variables)] too: u32) {
    #![allow(clippy::unused_async)]
    //! Kept as well.
    work().await;
}
