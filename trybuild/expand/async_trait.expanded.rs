impl Job for Mine {
    #[allow(clippy::let_unit_value)]
    fn run<'life0, 'life1, 'async_trait>(
        &'life0 self,
        tenant: &'life1 str,
        items: Vec<u8>,
    ) -> ::core::pin::Pin<
        Box<
            dyn ::core::future::Future<
                Output = Result<usize, Error>,
            > + ::core::marker::Send + 'async_trait,
        >,
    >
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let call = ::applock::__private::Call::new(
                ::core::module_path!(),
                "run",
                ::applock::__private::LockOptions::app("a")
                    .name(::std::format!("tenant-{tenant}"))
                    .remember(::core::time::Duration::from_secs(3600u64)),
            );
            let body = async move {
                #[allow(
                    unreachable_code,
                    clippy::diverging_sub_expression,
                    clippy::empty_loop,
                    clippy::let_unit_value,
                    clippy::needless_return
                )]
                if false {
                    let never: Result<usize, Error> = ::applock::__private::finished::<
                        Result<usize, Error>,
                        _,
                    >(
                        ::applock::__private::Returned::<Result<usize, Error>>::NEW
                            .kind(),
                    );
                    return never;
                }
                let guard = ::applock::__private::current_guard();
                {
                    if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<
                        Result<usize, Error>,
                    > {
                        #[allow(unreachable_code)] return __ret;
                    }
                    let __self = self;
                    let items = items;
                    let __ret: Result<usize, Error> = { Ok(items.len() + tenant.len()) };
                    #[allow(unreachable_code)] __ret
                }
            };
            let body = ::core::pin::pin!(::core::option::Option::Some(body));
            match call.run(body).await {
                ::core::result::Result::Ok(value) => value,
                ::core::result::Result::Err(error) => {
                    <Result<
                        usize,
                        Error,
                    > as ::applock::__private::Refusal>::refused(error)
                }
            }
        })
    }
}
