-- Sets the leases of many locks back to their full ttl: one heartbeat for up to 100 locks of a
-- process, one round trip. Stands alone.
--
-- KEYS  of each lock: all locks, then all fences
-- ARGV  for each lock: ttl in ms, the expiry of its fence in ms (ttl and remember), owner id
--       Or, of several locks that differ in their owner ids alone: the first two once, then each
--       owner id
-- Answer  for each lock: 1 renewed, 0 not held by that owner (and nothing changed)
--
-- Danger: a heartbeat that lengthens a lease which is another owner's by now, or a replica's 'not
-- held' that is only old data. The owner id is compared in the same step; a 'not held' writes.
--
-- `confirm` and `touch` of queue.lua are repeated here, without functions: each that a script makes
-- costs every call 3 µs.

local KEYS, ARGV = KEYS, ARGV
local count, answer = #KEYS / 2, {}
local is_shared = #ARGV == count + 2
local ttl, fence_ttl = ARGV[1], ARGV[2]
-- A key of another type is as one that is not there: not held.
local texts = redis.call('MGET', unpack(KEYS, 1, count))
for at = 1, count do
    local lock, fence, text, owner = KEYS[at], KEYS[count + at], texts[at], ARGV[at + 2]
    if not is_shared then
        ttl, fence_ttl, owner = ARGV[3 * at - 2], ARGV[3 * at - 1], ARGV[3 * at]
    end
    -- 43: where the owner id stands, after the state.
    local state = text and string.sub(text, 43, 74) == owner and string.sub(text, 1, 27)
    if state == '{"applock":1,"state":"claim' then
        -- A waiter's claim: now it is a full lease, and others may wait behind it. A server short
        -- of memory may refuse the change of the text, and the next heartbeat tries again.
        redis.pcall('SETRANGE', lock, '13', '"state":"awaited",  ')
        state = '{"applock":1,"state":"await'
    end
    if state == '{"applock":1,"state":"held"' or state == '{"applock":1,"state":"await' then
        redis.call('PEXPIRE', lock, ttl)
        -- It may be remembered longer than the request says: see `holding_of` in queue.lua.
        local remember = state == '{"applock":1,"state":"await'
            and string.match(text, '^"ttl":%d+,"remember":(%d+)', 77)
        -- The fence outlives the lease; its own time left tells when the last heartbeat came.
        redis.call('PEXPIRE', fence, remember and ttl + remember or fence_ttl)
        answer[at] = 1
    else
        -- A replica that lacks the key must say READONLY, not 'not yours'.
        local left = redis.call('PTTL', fence)
        redis.call('PEXPIRE', fence, left > 0 and left or fence_ttl)
        answer[at] = 0
    end
end
return answer
