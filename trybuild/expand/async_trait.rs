impl Job for Mine {
    #[singleton(app = "a", name = "tenant-{tenant}", guard = guard)]
    #[allow(clippy::let_unit_value)]
    fn run<'life0, 'life1, 'async_trait>(
        &'life0 self,
        tenant: &'life1 str,
        items: Vec<u8>,
    ) -> ::core::pin::Pin<
        Box<dyn ::core::future::Future<Output = Result<usize, Error>> + ::core::marker::Send + 'async_trait>,
    >
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<Result<usize, Error>> {
                #[allow(unreachable_code)]
                return __ret;
            }
            let __self = self;
            let items = items;
            let __ret: Result<usize, Error> = { Ok(items.len() + tenant.len()) };
            #[allow(unreachable_code)]
            __ret
        })
    }
}
