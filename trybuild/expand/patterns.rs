#[singleton(app = "a", name = "{left}-{id}")]
fn patterns(
    (mut left, _): (u32, u32),
    Pair { id, ref name, .. }: Pair,
    #[cfg(unix)] whole @ [_, last]: [u32; 2],
    _: Unused,
) {
}
