impl<T> Tree<T>
where
    T: Send,
{
    #[singleton(app = "a", name = "shard-{N}")]
    pub(crate) async unsafe fn shard<'a, const N: usize, U: Into<T> + 'a>(
        &'a mut self,
        item: U,
    ) -> Option<&'a mut T>
    where
        U: Send,
    {
        self.insert(N, item.into())
    }
}
