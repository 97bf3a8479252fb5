/// Kept.
#[inline]
#[tokio::main(flavor = "current_thread")]
async fn main(#[allow(unused_variables)] unused: u32, too: u32) {
    #![allow(clippy::unused_async)]
    //! Kept as well.
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "main",
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
            let never: () = loop {};
            return never;
        }
        #[allow(unused_variables)]
        #[allow(
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let unused = unused;
        #[expect(unused_variables)]
        #[allow(
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let too = too;
        #[allow(clippy::diverging_sub_expression)]
        let value: () = {
            work().await;
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
