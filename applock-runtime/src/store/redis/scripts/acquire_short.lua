-- Takes locks that are free, or that the same owner id already holds.
--
-- Three texts make the script: this one, queue.lua, acquire.lua. Up to 32 locks of one process in a
-- call, one round trip. Stands after clock.lua.
--
-- KEYS  of each lock: all locks, then all queues, all waiters, all fences
-- ARGV  for each lock: ttl in ms, the expiry of its fence in ms (ttl and remember), the text of the
--       lock up to its token, as it is while the lock is held; and if any request of the call may
--       wait, for each lock also
--       '' not to wait, or to wait in the queue: 'ticket run channel'
--       and if any request of the call is once per tick, for each lock also what an earlier run
--       forbids: '' nothing; else see `forbids` in queue.lua
--       ticket: of a place that it had, or '0'; run: '0' if this process does not listen on its
--       channel, or the run id of the server ('1': unknown)
--       Or, of several locks that differ in their texts alone, and are not once per tick: one ttl, one
--       expiry, one '' or 'ticket run channel', then each text
-- Answer  of a single lock as it is, otherwise a list:
--         'token'                granted now, as the token says: it is the clock, of 16 digits
--         'token acquired at in ms'             granted
--         {0, type of what is there, its time left in ms, now in microseconds, how many
--          wait, how many before us (-1: not in the queue), 1 if we are new there, our
--          ticket ('0': the one we brought), its text if it is a string}                  held by another
--         {2, ...}                                              see `forbids` in queue.lua
--         {-1, error}                                           not done
--
-- This part serves locks that are free and have no queue, for requests that no earlier run
-- forbids: most calls need no more, and return
-- before the rest of the script makes a single function. What it does not serve, for whatever
-- reason, it leaves as it was to `take` in acquire.lua.
--
-- Danger: a free lock that waiters queue for must not go to a request that comes by. So locks and
-- queues are asked for in one command.

-- 22: the beginning of a fence, up to its state. 25: its end, or that of its first line, the token;
-- another length is left to `take`. Texts of one length are in the order of the numbers (rule R8).
local KEYS, ARGV, call, try = KEYS, ARGV, redis.call, redis.pcall
local count = #KEYS / 4
local answers, is_done, is_shared = nil, false, false
if count == 1 then
    local lock, fence = KEYS[1], KEYS[4]
    if #ARGV < 5 and call('EXISTS', lock, KEYS[2]) == 0 then
        -- A longer one is served by `take`.
        local old = try('GETRANGE', fence, '0', '2047')
        local is_next, line = old == '' and #micros == 16, nil
        if not is_next and type(old) == 'string' and #old < 2048
            and string.sub(old, 1, 22) == '{"applock":1,"state":"' then
            line = string.find(old, '\n', 60, true)
            local last = string.match(old, '^"token":(%d+)}', (line or 0) - 25)
            -- What ticks need, in the third line, is left to `take`.
            is_next = last and #last == #micros and last < micros
                and not (line and string.find(old, '\n', line + 1, true))
        end
        if is_next then
            local text = ARGV[3] .. micros .. '}'
            local new = text
            -- What the new fence keeps of the old one: see `keep_of` in queue.lua. It stands here, there,
            -- and below for several locks: a function would cost each call 3 µs to make.
            if string.sub(old, 23, 25) == 'ok"' then
                new = text .. '\n{"noted_at":' .. micros .. ',"left":' .. call('PTTL', fence) .. ','
                    .. string.sub(old, 2, (line or 0) - 1)
            elseif line then
                new = text .. string.sub(old, line)
            end
            -- The fence, whose writing can fail (type, rights, memory), comes first (rule R3).
            local failed = try('SET', fence, new, 'PX', ARGV[2]).err
                or try('SET', lock, text, 'PX', ARGV[1]).err
            if not failed then
                return micros
            end
        end
    end
else
    is_shared = #ARGV == count + 3
    local step = #ARGV / count
    local fences = (is_shared or step < 5) and call('EXISTS', unpack(KEYS, 1, 2 * count)) == 0
        and call('MGET', unpack(KEYS, 3 * count + 1, 4 * count))
    local ttl, fence_ttl, seen = ARGV[1], ARGV[2], {}
    answers, is_done = {}, true
    for at = 1, count do
        local lock, old, tail, line, last = KEYS[at], fences and fences[at], ARGV[at + 3]
        if not is_shared then
            local arg = step * (at - 1)
            ttl, fence_ttl, tail = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
        end
        -- MGET finds nothing also where a key is no string: `take` tells the two apart. And a
        -- lock that stands in the call twice is free for the first request only.
        if old and string.sub(old, 1, 22) == '{"applock":1,"state":"' and not seen[lock] then
            line = string.find(old, '\n', 60, true)
            last = string.match(old, '^"token":(%d+)}', (line or 0) - 25)
        end
        local failed = true
        if last and #last == #micros and last < micros
            and not (line and string.find(old, '\n', line + 1, true)) then
            seen[lock] = true
            local fence, text = KEYS[3 * count + at], tail .. micros .. '}'
            local new = text
            if string.sub(old, 23, 25) == 'ok"' then
                new = text .. '\n{"noted_at":' .. micros .. ',"left":' .. call('PTTL', fence) .. ','
                    .. string.sub(old, 2, (line or 0) - 1)
            elseif line then
                new = text .. string.sub(old, line)
            end
            failed = try('SET', fence, new, 'PX', fence_ttl).err
                or try('SET', lock, text, 'PX', ttl).err
        end
        if failed then
            is_done = false
        else
            answers[at] = micros
        end
    end
end
if is_done then
    return answers
end

