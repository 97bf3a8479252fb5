::core::compile_error! {
    "there is no argument `ap`; did you mean `app`?"
}
::core::compile_error! {
    "`ttl` is zero, which is too short: the shortest is 100 ms; write seconds (`ttl = 60`) or a duration (`ttl = \"500ms\"`)"
}
::core::compile_error! {
    "expected `=` and a value after `wait`: write `wait = \"10s\"`"
}
::core::compile_error! {
    "`{tennant}` names no argument of this function: did you mean `{tenant}`?"
}
async fn broken(tenant: u32) -> u32 {
    tenant
}
