impl Job {
    #[singleton(app = "a", name = "{self}")]
    async fn by_ref(&self) {}

    #[singleton(app = "b")]
    async fn by_value(mut self) -> Option<Self> {
        self.0 += 1;
        Some(self)
    }

    #[singleton(app = "c")]
    fn sync_by_mut(&mut self) -> Option<&mut u32> {
        Some(&mut self.0)
    }

    #[singleton(app = "d")]
    fn sync_by_value(self: Box<Self>, by: u32) -> Option<u32> {
        Some(self.0 + by)
    }

    fn untouched(&self) {}
}
