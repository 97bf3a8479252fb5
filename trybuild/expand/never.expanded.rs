async fn leader() -> ! {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "leader",
        ::applock::__private::LockOptions::app("a").wait_forever(),
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
            let never: <fn() -> ! as ::applock::__private::Returns>::Value = loop {};
            return never;
        }
        #[allow(clippy::diverging_sub_expression)]
        let value: <fn() -> ! as ::applock::__private::Returns>::Value = {
            loop {
                step().await;
            }
        };
        #[allow(unreachable_code)] value
    };
    let body = ::core::pin::pin!(::core::option::Option::Some(body));
    match call.run(body).await {
        ::core::result::Result::Ok(value) => value,
        ::core::result::Result::Err(error) => {
            let carried = {
                #[allow(unused_imports)]
                use ::applock::__private::{CarriesError as _, CarriesNothing as _};
                (&::applock::__private::AutorefDispatch::<
                    <fn() -> ! as ::applock::__private::Returns>::Value,
                >::NEW)
                    .carry(error)
            };
            match carried {
                ::core::option::Option::Some(value) => value,
                ::core::option::Option::None => {
                    #[allow(clippy::diverging_sub_expression)]
                    let instead: <fn() -> ! as ::applock::__private::Returns>::Value = exit(
                        1,
                    );
                    #[allow(unreachable_code)] instead
                }
            }
        }
    }
}
fn leader_sync() -> ! {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "leader_sync",
        ::applock::__private::LockOptions::app("b"),
    );
    match call.enter::<()>() {
        ::core::result::Result::Ok(mut _run) => {
            #[allow(clippy::diverging_sub_expression)]
            let value: <fn() -> ! as ::applock::__private::Returns>::Value = {
                loop {
                    step();
                }
            };
            #[allow(unreachable_code)] _run.returned(&value);
            #[allow(unreachable_code)] value
        }
        ::core::result::Result::Err(error) => {
            let carried = {
                #[allow(unused_imports)]
                use ::applock::__private::{CarriesError as _, CarriesNothing as _};
                (&::applock::__private::AutorefDispatch::<
                    <fn() -> ! as ::applock::__private::Returns>::Value,
                >::NEW)
                    .carry(error)
            };
            match carried {
                ::core::option::Option::Some(value) => value,
                ::core::option::Option::None => {
                    #[allow(clippy::diverging_sub_expression)]
                    let instead: <fn() -> ! as ::applock::__private::Returns>::Value = panic!(
                        "busy"
                    );
                    #[allow(unreachable_code)] instead
                }
            }
        }
    }
}
