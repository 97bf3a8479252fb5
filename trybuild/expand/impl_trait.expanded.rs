async fn whole(items: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "whole",
        ::applock::__private::LockOptions::app("a"),
    );
    let body = async move {
        #[allow(
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let items = items;
        #[allow(clippy::diverging_sub_expression)]
        let value = { items };
        #[allow(unreachable_code)] value
    };
    let body = ::core::pin::pin!(::core::option::Option::Some(body));
    match call.run(body).await {
        ::core::result::Result::Ok(value) => value,
        ::core::result::Result::Err(_) => Vec::new().into_iter(),
    }
}
fn inside() -> Result<impl Iterator<Item = u32>, Error> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "inside",
        ::applock::__private::LockOptions::app("b"),
    );
    match call.enter::<::core::result::Result<(), ()>>() {
        ::core::result::Result::Ok(mut _run) => {
            #[allow(clippy::diverging_sub_expression)]
            let value: Result<_, Error> = { Ok(0..1) };
            #[allow(unreachable_code)] _run.returned(&value);
            #[allow(unreachable_code)] value
        }
        ::core::result::Result::Err(error) => {
            <Result<_, Error> as ::applock::__private::Refusal>::refused(error)
        }
    }
}
fn closure() -> impl Fn(&str) -> &str {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "closure",
        ::applock::__private::LockOptions::app("c"),
    );
    let _run = match call.enter::<()>() {
        ::core::result::Result::Ok(run) => run,
        ::core::result::Result::Err(_) => {
            #[allow(unreachable_code, clippy::diverging_sub_expression)] return same;
        }
    };
    #[allow(unused_braces)] { |text| text }
}
