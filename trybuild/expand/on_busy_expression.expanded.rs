async fn expression() -> Result<u32, Mine> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "expression",
        ::applock::__private::LockOptions::app("a"),
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
            let never: Result<u32, Mine> = ::applock::__private::finished::<
                Result<u32, Mine>,
                _,
            >(::applock::__private::Returned::<Result<u32, Mine>>::NEW.kind());
            return never;
        }
        #[allow(clippy::diverging_sub_expression)]
        let value: Result<u32, Mine> = { Ok(1) };
        #[allow(unreachable_code)] value
    };
    let body = ::core::pin::pin!(::core::option::Option::Some(body));
    match call.run(body).await {
        ::core::result::Result::Ok(value) => value,
        ::core::result::Result::Err(error) => {
            let carried = {
                #[allow(unused_imports)]
                use ::applock::__private::{CarriesError as _, CarriesNothing as _};
                (&::applock::__private::AutorefDispatch::<Result<u32, Mine>>::NEW)
                    .carry(error)
            };
            match carried {
                ::core::option::Option::Some(value) => value,
                ::core::option::Option::None => {
                    #[allow(clippy::diverging_sub_expression)]
                    let instead: Result<u32, Mine> = Err(Mine::Busy);
                    #[allow(unreachable_code)] instead
                }
            }
        }
    }
}
fn skip() -> Result<(), Mine> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "skip",
        ::applock::__private::LockOptions::app("b"),
    );
    match call.enter::<Result<(), Mine>>() {
        ::core::result::Result::Ok(mut _run) => {
            #[allow(
                unreachable_code,
                clippy::diverging_sub_expression,
                clippy::empty_loop,
                clippy::let_unit_value,
                clippy::needless_return
            )]
            if false {
                let never: Result<(), Mine> = ::applock::__private::finished::<
                    Result<(), Mine>,
                    _,
                >(::applock::__private::Returned::<Result<(), Mine>>::NEW.kind());
                return never;
            }
            #[allow(clippy::diverging_sub_expression)]
            let value: Result<(), Mine> = { Ok(()) };
            #[allow(unreachable_code)] _run.returned(&value);
            #[allow(unreachable_code)] value
        }
        ::core::result::Result::Err(error) => {
            let carried = {
                #[allow(unused_imports)]
                use ::applock::__private::{CarriesError as _, CarriesNothing as _};
                (&::applock::__private::AutorefDispatch::<Result<(), Mine>>::NEW)
                    .carry(error)
            };
            match carried {
                ::core::option::Option::Some(value) => value,
                ::core::option::Option::None => {
                    <Result<(), Mine> as ::applock::__private::Skip>::skipped()
                }
            }
        }
    }
}
