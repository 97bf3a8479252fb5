async fn bill(tenant: u32, limits: &Limits) -> Result<(), Error> {
    let call = crate::lock::__private::Call::new(
            ::core::module_path!(),
            "bill",
            crate::lock::__private::LockOptions::app("billing")
                .name(::std::format!("tenant-{tenant:04}-{{braces}}"))
                .ttl(::core::time::Duration::new(90u64, 0u32))
                .wait(::core::time::Duration::new(10u64, 0u32))
                .at_least(::core::time::Duration::new(30u64, 0u32))
                .at_most({
                    let length: ::core::time::Duration = limits.at_most;
                    length
                })
                .remember(::core::time::Duration::new(2592000u64, 0u32))
                .reentrant(),
        )
        .finish_when_lost()
        .locker(&limits.locker);
    let body = async move {
        #[allow(
            unreachable_code,
            clippy::diverging_sub_expression,
            clippy::empty_loop,
            clippy::let_unit_value,
            clippy::needless_return
        )]
        if false {
            let never: Result<(), Error> = crate::lock::__private::finished::<
                Result<(), Error>,
                _,
            >(crate::lock::__private::Returned::<Result<(), Error>>::NEW.kind());
            return never;
        }
        #[allow(
            unused_variables,
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let tenant = tenant;
        #[allow(
            unused_variables,
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let limits = limits;
        let held = crate::lock::__private::current_guard();
        #[allow(clippy::diverging_sub_expression)]
        let value: Result<(), Error> = { held.ensure_held() };
        #[allow(unreachable_code)] value
    };
    let body = ::core::pin::pin!(::core::option::Option::Some(body));
    match call.run(body).await {
        ::core::result::Result::Ok(value) => value,
        ::core::result::Result::Err(error) => {
            <Result<
                (),
                Error,
            > as crate::lock::__private::RefuseWithError>::refused_with_error(error)
        }
    }
}
async fn invoices(tenant: u32, fired_at: SystemTime) -> Result<(), Error> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "invoices",
        ::applock::__private::LockOptions::app("billing")
            .name(::std::format!("tenant-{tenant}"))
            .tick(fired_at)
            .retry_failed(),
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
            let never: Result<(), Error> = ::applock::__private::finished::<
                Result<(), Error>,
                _,
            >(::applock::__private::Returned::<Result<(), Error>>::NEW.kind());
            return never;
        }
        #[allow(
            unused_variables,
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let tenant = tenant;
        #[allow(
            unused_variables,
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let fired_at = fired_at;
        #[allow(clippy::diverging_sub_expression)]
        let value: Result<(), Error> = { Ok(()) };
        #[allow(unreachable_code)] value
    };
    let body = ::core::pin::pin!(::core::option::Option::Some(body));
    match call.run(body).await {
        ::core::result::Result::Ok(value) => value,
        ::core::result::Result::Err(error) => {
            <Result<(), Error> as ::applock::__private::Refusal>::refused(error)
        }
    }
}
fn hourly(seconds: u64) -> Result<(), Error> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "hourly",
        ::applock::__private::LockOptions::app("billing")
            .every(::core::time::Duration::new(3600u64, 0u32))
            .retry_failed(),
    );
    match call.enter::<Result<(), Error>>() {
        ::core::result::Result::Ok(mut _run) => {
            #[allow(clippy::let_unit_value)]
            let value = ::applock::__private::call_once(move || -> Result<(), Error> {
                #[allow(
                    unreachable_code,
                    clippy::diverging_sub_expression,
                    clippy::empty_loop,
                    clippy::let_unit_value,
                    clippy::needless_return
                )]
                if false {
                    let never: Result<(), Error> = ::applock::__private::finished::<
                        Result<(), Error>,
                        _,
                    >(::applock::__private::Returned::<Result<(), Error>>::NEW.kind());
                    return never;
                }
                #[allow(
                    clippy::let_unit_value,
                    clippy::no_effect_underscore_binding,
                    clippy::redundant_locals,
                    clippy::shadow_same,
                    clippy::used_underscore_binding
                )]
                let seconds = seconds;
                #[allow(clippy::diverging_sub_expression)]
                let value: Result<(), Error> = {
                    work(seconds)?;
                    Ok(())
                };
                #[allow(unreachable_code)] value
            });
            #[allow(unreachable_code)] _run.returned(&value);
            #[allow(unreachable_code)] value
        }
        ::core::result::Result::Err(error) => {
            <Result<(), Error> as ::applock::__private::Refusal>::refused(error)
        }
    }
}
fn by_key() {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "by_key",
        ::applock::__private::LockOptions::whole_key("{tag}:whole").wait_forever(),
    );
    match call.enter::<()>() {
        ::core::result::Result::Ok(mut _run) => {
            #[allow(clippy::diverging_sub_expression)]
            let value: () = {};
            #[allow(unreachable_code)] _run.returned(&value);
            #[allow(unreachable_code)] value
        }
        ::core::result::Result::Err(error) => {
            <() as ::applock::__private::Refusal>::refused(error)
        }
    }
}
