-- Sets the leases of many locks back to their full ttl: one heartbeat for up to 100 locks of a
-- process, one round trip. Stands alone.
--
-- KEYS  for each lock: the lock, its fence
-- ARGV  for each lock: owner id, ttl in ms, the expiry of its fence in ms (ttl and remember)
-- Answer  for each lock: 1 renewed, 0 not held by that owner (and nothing changed)
--
-- Danger: a heartbeat that lengthens a lease which is another owner's by now, or a replica's 'not
-- held' that is only old data. The owner id is compared in the same step; a 'not held' writes.

local answer, locks = {}, {}
for i = 1, #KEYS, 2 do
    locks[#locks + 1] = KEYS[i]
end
-- A key of another type is as one that is not there: not held.
local texts = redis.call('MGET', unpack(locks))
for at = 1, #locks do
    local lock, fence, text = locks[at], KEYS[2 * at], texts[at]
    local owner, ttl, fence_ttl = ARGV[3 * at - 2], ARGV[3 * at - 1], ARGV[3 * at]
    local beginning = text and string.find(text, owner, 60, true) and string.sub(text, 1, 31)
    if beginning == '{"applock":1,"state":"claimed",' then
        -- A waiter's claim: now it is a full lease. A server short of memory may refuse the
        -- change of the text, and the next heartbeat tries again.
        redis.pcall('SETRANGE', lock, '13', '"state":"held",     ')
        beginning = '{"applock":1,"state":"held",   '
    end
    if beginning == '{"applock":1,"state":"held",   ' then
        redis.call('PEXPIRE', lock, ttl)
        -- The fence outlives the lease; its own time left tells when the last heartbeat came.
        redis.call('PEXPIRE', fence, fence_ttl)
        answer[at] = 1
    else
        -- A replica that lacks the key must say READONLY, not 'not yours'.
        local left = redis.call('PTTL', fence)
        redis.call('PEXPIRE', fence, left > 0 and left or fence_ttl)
        answer[at] = 0
    end
end
return answer
