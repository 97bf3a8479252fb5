/// Documented.
#[must_use]
pub async fn report(day: Date, tries: u32) -> anyhow::Result<()> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "report",
        ::applock::__private::LockOptions::app("reports")
            .ttl(::core::time::Duration::new(60u64, 0u32)),
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
            let never: anyhow::Result<()> = ::applock::__private::finished::<
                anyhow::Result<()>,
                _,
            >(::applock::__private::Returned::<anyhow::Result<()>>::NEW.kind());
            return never;
        }
        #[allow(
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let day = day;
        #[allow(
            clippy::let_unit_value,
            clippy::no_effect_underscore_binding,
            clippy::redundant_locals,
            clippy::shadow_same,
            clippy::used_underscore_binding
        )]
        let mut tries = tries;
        #[allow(clippy::diverging_sub_expression)]
        let value: anyhow::Result<()> = {
            tries += 1;
            send(day, tries).await?;
            Ok(())
        };
        #[allow(unreachable_code)] value
    };
    let body = ::core::pin::pin!(::core::option::Option::Some(body));
    match call.run(body).await {
        ::core::result::Result::Ok(value) => value,
        ::core::result::Result::Err(error) => {
            <anyhow::Result<()> as ::applock::__private::Refusal>::refused(error)
        }
    }
}
