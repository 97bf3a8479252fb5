//! The simulated server answers as the real one does.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::{AsyncCommands as _, ProtocolVersion};

use crate::simulation;
use crate::simulation::world::{Dialler, SERVER, World, host_name};
use crate::store::redis::{Address, Connector as _};

use super::data::Data;
use super::lua::Scripts;
use super::wire::Reply;

/// What a command answers, as it goes over the wire, with blanks between the lines.
fn on_the_wire(reply: &Reply) -> String {
    let mut out = Vec::new();
    reply.write(false, &mut out);
    String::from_utf8(out).unwrap().trim().replace("\r\n", " ")
}

/// Commands, and what each must answer.
fn check(data: &mut Data, now: u64, commands: &[(&str, &str)]) {
    for (command, expected) in commands {
        let words: Vec<&str> = command.split(' ').collect();
        let reply = data.command(&words, Duration::from_millis(now)).unwrap();
        assert_eq!(on_the_wire(&reply), *expected, "{command}");
    }
}

#[test]
fn hashes_are_written_and_read() {
    check(
        &mut Data::default(),
        0,
        &[
            ("HGET h a", "$-1"),
            ("EXISTS h", ":0"),
            ("HSET h a 1 b 2", ":2"),
            ("HSET h a 3 c 4", ":1"),
            ("HGET h a", "$1 3"),
            ("HDEL h a b x", ":2"),
            ("TYPE h", "+hash"),
            ("HINCRBY h n 2", ":2"),
            ("HINCRBY h n -3", ":-1"),
            ("HLEN h", ":2"),
            ("HDEL h c n", ":2"),
            ("TYPE h", "+none"),
            ("HSET h a", "-ERR wrong number of arguments"),
        ],
    );
}

#[test]
fn sorted_sets_keep_their_order() {
    check(
        &mut Data::default(),
        0,
        &[
            ("ZADD z 3 c 1 a 2 b", ":3"),
            ("ZADD z NX 9 a 2 bb", ":1"),
            ("ZRANGE z 0 -1", "*4 $1 a $1 b $2 bb $1 c"),
            ("ZADD z 0.5 c", ":0"),
            ("ZRANGE z 0 1 WITHSCORES", "*4 $1 c $3 0.5 $1 a $1 1"),
            ("ZRANGE z -2 -1", "*2 $1 b $2 bb"),
            ("ZRANGE z 2 1", "*0"),
            ("ZRANGE z 4 9", "*0"),
            ("ZRANK z bb", ":3"),
            ("ZRANK z x", "$-1"),
            ("ZCARD z", ":4"),
            ("ZREM z a x c", ":2"),
            ("ZADD z 1 d f e", "-ERR value is not a valid float"),
            ("ZCARD z", ":2"),
            ("TYPE z", "+zset"),
            ("ZPOPMIN z", "*2 $1 b $1 2"),
            ("ZREM z b bb", ":1"),
            ("ZPOPMIN z", "*0"),
            ("EXISTS z", ":0"),
            ("ZCARD z", ":0"),
        ],
    );
}

#[test]
fn scores_are_printed_as_doubles() {
    let mut data = Data::default();
    for (score, printed) in [
        ("1800000000123456", "1800000000123456"),
        ("1800000000123456.5", "1800000000123456.5"),
        ("9007199254740993", "9007199254740992"),
        ("-0.25", "-0.25"),
        ("1e20", "1e+20"),
        ("inf", "inf"),
    ] {
        let expected = format!("${} {printed}", printed.len());
        check(
            &mut data,
            0,
            &[
                (&format!("ZADD z {score} a"), ":1"),
                ("ZSCORE z a", &expected),
                ("DEL z", ":1"),
            ],
        );
    }
}

#[test]
fn keys_of_one_kind_refuse_commands_of_the_other() {
    let refused = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    check(
        &mut Data::default(),
        0,
        &[
            ("HSET h a 1", ":1"),
            ("ZADD h 1 a", refused),
            ("ZADD z 1 a", ":1"),
            ("HGET z a", refused),
            ("EXISTS h z x h", ":3"),
            ("DEL h z x", ":2"),
        ],
    );
}

#[test]
fn parts_of_texts_are_read_and_written_over() {
    check(
        &mut Data::default(),
        0,
        &[
            ("GETRANGE t 0 9", "$0"),
            ("SET t abcdef PX 500", "+OK"),
            ("GETRANGE t 0 2", "$3 abc"),
            ("GETRANGE t 4 99", "$2 ef"),
            ("GETRANGE t 7 99", "$0"),
            ("SETRANGE t 2 XY", ":6"),
            ("GET t", "$6 abXYef"),
            ("PTTL t", ":500"),
            ("SETRANGE u 2 a", ":3"),
            ("GET u", "$3 \0\0a"),
            ("PTTL u", ":-1"),
        ],
    );
}

#[test]
fn keys_expire() {
    let mut data = Data::default();
    check(
        &mut data,
        1_000,
        &[
            ("PTTL h", ":-2"),
            ("PEXPIRE h 5", ":0"),
            ("HSET h a 1", ":1"),
            ("PTTL h", ":-1"),
            (
                "PEXPIRE h 1.5",
                "-ERR value is not an integer or out of range",
            ),
            ("PEXPIRE h 500", ":1"),
        ],
    );
    check(
        &mut data,
        1_400,
        &[("HSET h b 1", ":1"), ("PTTL h", ":100")],
    );
    check(
        &mut data,
        1_501,
        &[("EXISTS h", ":0"), ("HSET h a 1", ":1"), ("PTTL h", ":-1")],
    );
    check(
        &mut data,
        1_501,
        &[("PEXPIRE h 0", ":1"), ("TYPE h", "+none")],
    );
}

/// What a script answers over empty data.
fn answer(script: &str, keys: &[&str], arguments: &[&str]) -> String {
    let data = std::cell::RefCell::new(Data::default());
    let scripts = Scripts::new(move |words| {
        let now = Duration::from_millis(1_500);
        data.borrow_mut().command(words, now).unwrap()
    })
    .unwrap();
    on_the_wire(&scripts.run(&scripts.learn(script), keys, arguments))
}

#[test]
fn scripts_run_commands() {
    let script = "redis.call('ZADD', KEYS[1], 1800000000123456 + 1, ARGV[1])
        return {redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('TIME'),
            redis.call('TYPE', KEYS[1]).ok, redis.call('HGET', 'x', 'y'), true, 2.9, 'x'}";
    assert_eq!(
        answer(script, &["q"], &["a"]),
        "*7 *2 $1 a $16 1800000000123457 *2 $10 1800000001 $6 500000 $4 zset $-1 :1 :2 $1 x"
    );
}

#[test]
fn a_failed_command_is_a_value_or_the_end() {
    let both = "redis.call('HSET', 'h', 'a', 1)
        local answered = redis.pcall('ZCARD', 'h').err
        local goes_on, why = pcall(redis.call, 'ZCARD', 'h')
        return {string.sub(answered, 1, 9), goes_on, string.sub(why.err, 1, 9)}";
    assert_eq!(answer(both, &[], &[]), "*3 $9 WRONGTYPE $-1 $9 WRONGTYPE");
    let uncaught = "redis.call('HSET', 'h', 'a', 1) return redis.call('ZCARD', 'h')";
    assert!(answer(uncaught, &[], &[]).starts_with("-WRONGTYPE"));
    let own = "return redis.error_reply('BADFENCE no')";
    assert_eq!(answer(own, &[], &[]), "-BADFENCE no");
}

#[test]
#[should_panic(expected = "a script fails: ")]
fn a_script_that_fails_by_itself_is_no_answer() {
    answer("return nothing.at_all", &[], &[]);
}

/// Runs `talk` as host 0 beside a server.
fn with_server<F: Future<Output = turmoil::Result> + 'static>(
    talk: impl FnOnce(Rc<World>, Dialler) -> F,
    protocol: ProtocolVersion,
) {
    let world = Rc::new(World::new(0, Duration::ZERO, false));
    let mut sim = simulation::with_server(&world);
    let dialler = world.dialler(0, protocol);
    sim.client(host_name(0), talk(world, dialler));
    sim.run().unwrap();
}

const BOTH: [ProtocolVersion; 2] = [ProtocolVersion::RESP2, ProtocolVersion::RESP3];

#[test]
fn a_subscriber_receives_what_is_published() {
    for protocol in BOTH {
        let talk = |_, dialler: Dialler| async move {
            let mut subscriber = dialler.listen(dialler.protocol, Address::Given).await?;
            let mut publisher = dialler.connect(&Address::Given).await?.commands;
            assert_eq!(publisher.publish::<_, _, u32>("a", "early").await?, 0);
            subscriber.subscribe("a").await?;
            subscriber.subscribe(&["b", "c"]).await?;
            subscriber.unsubscribe("c").await?;
            let _: redis::Value = subscriber.ping().await?;
            assert_eq!(publisher.publish::<_, _, u32>("c", "no").await?, 0);
            assert_eq!(publisher.publish::<_, _, u32>("b", "one").await?, 1);
            let received: u32 = redis::cmd("EVAL")
                .arg("return redis.call('PUBLISH', ARGV[1], ARGV[2])")
                .arg(0)
                .arg(&["a", "two"])
                .query_async(&mut publisher)
                .await?;
            assert_eq!(received, 1);
            let messages = subscriber.into_on_message().take(2);
            let messages: Vec<_> = messages
                .map(|message| {
                    let payload: String = message.get_payload().unwrap();
                    (message.get_channel_name().to_owned(), payload)
                })
                .collect()
                .await;
            let expected = [("b", "one"), ("a", "two")].map(|(a, b)| (a.into(), b.into()));
            assert_eq!(messages, expected);
            Ok(())
        };
        with_server(talk, protocol);
    }
}

#[test]
fn a_subscription_ends_with_its_connection() {
    for protocol in BOTH {
        let talk = |world: Rc<World>, dialler: Dialler| async move {
            let mut publisher = dialler.connect(&Address::Given).await?.commands;
            for reset in [false, true] {
                let mut subscriber = dialler.listen(dialler.protocol, Address::Given).await?;
                subscriber.subscribe("a").await?;
                assert_eq!(publisher.publish::<_, _, u32>("a", "one").await?, 1);
                if reset {
                    world.resets[0].notify_waiters();
                    let messages = subscriber.into_on_message();
                    assert_eq!(messages.count().await, 1);
                    publisher = dialler.connect(&Address::Given).await?.commands;
                } else {
                    drop(subscriber);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                assert_eq!(publisher.publish::<_, _, u32>("a", "two").await?, 0);
            }
            Ok(())
        };
        with_server(talk, protocol);
    }
}

#[test]
fn a_connection_that_the_network_cut_off_counts_as_subscribed() {
    for protocol in BOTH {
        let talk = |_, dialler: Dialler| async move {
            let mut subscriber = dialler.listen(dialler.protocol, Address::Given).await?;
            subscriber.subscribe("a").await?;
            turmoil::partition(host_name(0), SERVER);
            drop(subscriber);
            tokio::time::sleep(Duration::from_secs(5)).await;
            turmoil::repair(host_name(0), SERVER);
            let mut publisher = dialler.connect(&Address::Given).await?.commands;
            // What is sent there now shows that no client reads it.
            assert_eq!(publisher.publish::<_, _, u32>("a", "one").await?, 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(publisher.publish::<_, _, u32>("a", "two").await?, 0);
            Ok(())
        };
        with_server(talk, protocol);
    }
}
