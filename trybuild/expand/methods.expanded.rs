impl Job {
    async fn by_ref(&self) {
        let call = ::applock::__private::Call::new(
            ::core::module_path!(),
            "by_ref",
            ::applock::__private::LockOptions::app("a")
                .name(::std::format!("{self}"))
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
                let never: () = loop {};
                return never;
            }
            #[allow(clippy::diverging_sub_expression)]
            let value: () = {};
            #[allow(unreachable_code)] value
        };
        let body = ::core::pin::pin!(::core::option::Option::Some(body));
        match call.run(body).await {
            ::core::result::Result::Ok(value) => value,
            ::core::result::Result::Err(error) => {
                <() as ::applock::__private::Refusal>::refused(error)
            }
        }
    }
    async fn by_value(mut self) -> Option<Self> {
        let call = ::applock::__private::Call::new(
            ::core::module_path!(),
            "by_value",
            ::applock::__private::LockOptions::app("b"),
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
                let never: Option<Self> = ::applock::__private::finished::<
                    Option<Self>,
                    _,
                >(::applock::__private::Returned::<Option<Self>>::NEW.kind());
                return never;
            }
            let _ = &self;
            #[allow(clippy::diverging_sub_expression)]
            let value: Option<Self> = {
                self.0 += 1;
                Some(self)
            };
            #[allow(unreachable_code)] value
        };
        let body = ::core::pin::pin!(::core::option::Option::Some(body));
        match call.run(body).await {
            ::core::result::Result::Ok(value) => value,
            ::core::result::Result::Err(error) => {
                <Option<Self> as ::applock::__private::Refusal>::refused(error)
            }
        }
    }
    fn sync_by_mut(&mut self) -> Option<&mut u32> {
        let call = ::applock::__private::Call::new(
            ::core::module_path!(),
            "sync_by_mut",
            ::applock::__private::LockOptions::app("c"),
        );
        match call.enter::<Option<&mut u32>>() {
            ::core::result::Result::Ok(mut _run) => {
                #[allow(
                    unreachable_code,
                    clippy::diverging_sub_expression,
                    clippy::empty_loop,
                    clippy::let_unit_value,
                    clippy::needless_return
                )]
                if false {
                    let never: Option<&mut u32> = ::applock::__private::finished::<
                        Option<&mut u32>,
                        _,
                    >(::applock::__private::Returned::<Option<&mut u32>>::NEW.kind());
                    return never;
                }
                #[allow(clippy::diverging_sub_expression)]
                let value: Option<&mut u32> = { Some(&mut self.0) };
                #[allow(unreachable_code)] _run.returned(&value);
                #[allow(unreachable_code)] value
            }
            ::core::result::Result::Err(error) => {
                <Option<&mut u32> as ::applock::__private::Refusal>::refused(error)
            }
        }
    }
    fn sync_by_value(self: Box<Self>, by: u32) -> Option<u32> {
        let call = ::applock::__private::Call::new(
            ::core::module_path!(),
            "sync_by_value",
            ::applock::__private::LockOptions::app("d"),
        );
        match call.enter::<Option<u32>>() {
            ::core::result::Result::Ok(mut _run) => {
                #[allow(clippy::let_unit_value)]
                let value = ::applock::__private::call_once(move || -> Option<u32> {
                    #[allow(
                        unreachable_code,
                        clippy::diverging_sub_expression,
                        clippy::empty_loop,
                        clippy::let_unit_value,
                        clippy::needless_return
                    )]
                    if false {
                        let never: Option<u32> = ::applock::__private::finished::<
                            Option<u32>,
                            _,
                        >(::applock::__private::Returned::<Option<u32>>::NEW.kind());
                        return never;
                    }
                    let _ = &self;
                    #[allow(
                        clippy::let_unit_value,
                        clippy::no_effect_underscore_binding,
                        clippy::redundant_locals,
                        clippy::shadow_same,
                        clippy::used_underscore_binding
                    )]
                    let by = by;
                    #[allow(clippy::diverging_sub_expression)]
                    let value: Option<u32> = { Some(self.0 + by) };
                    #[allow(unreachable_code)] value
                });
                #[allow(unreachable_code)] _run.returned(&value);
                #[allow(unreachable_code)] value
            }
            ::core::result::Result::Err(error) => {
                <Option<u32> as ::applock::__private::Refusal>::refused(error)
            }
        }
    }
    fn untouched(&self) {}
}
