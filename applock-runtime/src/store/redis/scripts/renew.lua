-- Sets the leases of many locks back to their full ttl: one heartbeat for up to 100 locks of a
-- process, one round trip. Stands alone.
--
-- KEYS  for each lock: the lock, its fence
-- ARGV  for each lock: owner id, ttl in ms
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
    local lock, fence, owner, ttl = locks[at], KEYS[2 * at], ARGV[2 * at - 1], ARGV[2 * at]
    local text, confirmed, done = texts[at], nil, nil
    -- 54: the length of that beginning, up to the owner id's last digit.
    local is_held = text and string.sub(text, 1, 54) == '{"applock":1,"owner":"' .. owner
    if text and not is_held then
        confirmed = string.match(text, '^{"applock":1,"claim":%d+,("owner":"' .. owner .. '".*)$')
    end
    if confirmed then
        -- A waiter's claim: now it is a full lease. A server short of memory may refuse the
        -- change of the text, and the next heartbeat tries again.
        done = redis.pcall('SET', lock, '{"applock":1,' .. confirmed, 'PX', ttl)
    end
    if is_held or confirmed then
        if not done or done.err then
            redis.call('PEXPIRE', lock, ttl)
        end
        -- The fence outlives the lease; its own time left tells when the last heartbeat came.
        redis.call('PEXPIRE', fence, ttl + (string.match(text, '"remember":(%d+)', 54) or 0))
        answer[at] = 1
    else
        -- A replica that lacks the key must say READONLY, not 'not yours'.
        local left = redis.call('PTTL', fence)
        redis.call('PEXPIRE', fence, left > 0 and left or ttl)
        answer[at] = 0
    end
end
return answer
