fn patterns(
    (left, _): (u32, u32),
    Pair { id, ref name, .. }: Pair,
    #[cfg(unix)]
    whole @ [_,
    last,
    ]: [u32; 2],
    unnamed_3: Unused,
) {
    let call = ::applock::__private::Call::new(
        ::core::module_path!(),
        "patterns",
        ::applock::__private::LockOptions::app("a")
            .name(
                ::std::format!(
                    "{}-{}",
                    ::applock::__private::escaped(::core::format_args!("{left}"), "-"),
                    ::applock::__private::escaped(::core::format_args!("{id}"), "-")
                ),
            )
            .remember(::core::time::Duration::from_secs(3600u64)),
    );
    match call.enter::<()>() {
        ::core::result::Result::Ok(mut _run) => {
            let _unnamed = unnamed_3;
            #[allow(
                unused_variables,
                clippy::let_unit_value,
                clippy::no_effect_underscore_binding,
                clippy::redundant_locals,
                clippy::shadow_same,
                clippy::used_underscore_binding
            )]
            let mut left = left;
            #[allow(
                unused_variables,
                clippy::let_unit_value,
                clippy::no_effect_underscore_binding,
                clippy::redundant_locals,
                clippy::shadow_same,
                clippy::used_underscore_binding
            )]
            let id = id;
            #[allow(
                clippy::let_unit_value,
                clippy::no_effect_underscore_binding,
                clippy::redundant_locals,
                clippy::shadow_same,
                clippy::used_underscore_binding
            )]
            let name = name;
            #[cfg(unix)]
            #[allow(
                clippy::let_unit_value,
                clippy::no_effect_underscore_binding,
                clippy::redundant_locals,
                clippy::shadow_same,
                clippy::used_underscore_binding
            )]
            let whole = whole;
            #[cfg(unix)]
            #[allow(
                clippy::let_unit_value,
                clippy::no_effect_underscore_binding,
                clippy::redundant_locals,
                clippy::shadow_same,
                clippy::used_underscore_binding
            )]
            let last = last;
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
