async fn report() {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "report",
        ::applock::__private::LockOptions::app("reports"),
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
        let value: () = {
            send().await;
        };
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
