impl Broken {
    #[singleton(app = "a")]
    fn future(&self) -> impl Future<Output = u32> {
        async { 1 }
    }

    #[singleton(app = "a", on_lost = cancel)]
    fn iterator(&self) -> impl Iterator<Item = u32> {
        0..1
    }
}
