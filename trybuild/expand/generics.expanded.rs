impl<T> Tree<T>
where
    T: Send,
{
    pub(crate) async unsafe fn shard<'a, const N: usize, U: Into<T> + 'a>(
        &'a mut self,
        item: U,
    ) -> Option<&'a mut T>
    where
        U: Send,
    {
        let call = ::applock::__private::Call::new(
            ::core::module_path!(),
            "shard",
            ::applock::__private::LockOptions::app("a")
                .name(::std::format!("shard-{N}"))
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
                let never: Option<&'a mut T> = ::applock::__private::finished::<
                    Option<&'a mut T>,
                    _,
                >(::applock::__private::Returned::<Option<&'a mut T>>::NEW.kind());
                return never;
            }
            #[allow(
                clippy::let_unit_value,
                clippy::no_effect_underscore_binding,
                clippy::redundant_locals,
                clippy::shadow_same,
                clippy::used_underscore_binding
            )]
            let item = item;
            #[allow(clippy::diverging_sub_expression)]
            let value: Option<&'a mut T> = { self.insert(N, item.into()) };
            #[allow(unreachable_code)] value
        };
        let body = ::core::pin::pin!(::core::option::Option::Some(body));
        match call.run(body).await {
            ::core::result::Result::Ok(value) => value,
            ::core::result::Result::Err(error) => {
                <Option<&'a mut T> as ::applock::__private::Refusal>::refused(error)
            }
        }
    }
}
