fn report(day: &Date, tries: u32) -> Option<u32> {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "report",
        ::applock::__private::LockOptions::app("reports")
            .ttl(::core::time::Duration::new(1u64, 500000000u32)),
    );
    match call.enter::<Option<u32>>() {
        ::core::result::Result::Ok(mut _run) => {
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
            let value: Option<u32> = {
                tries += 1;
                Some(tries)
            };
            #[allow(unreachable_code)] _run.returned(&value);
            #[allow(unreachable_code)] value
        }
        ::core::result::Result::Err(error) => {
            <Option<u32> as ::applock::__private::Refusal>::refused(error)
        }
    }
}
