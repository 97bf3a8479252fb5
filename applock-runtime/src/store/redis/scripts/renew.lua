-- Sets the leases of many locks back to their full ttl: one heartbeat for up to 100 locks of a
-- process, one round trip. Stands alone.
--
-- KEYS  for each lock: the lock, its fence
-- ARGV  1 how long a fence outlives its last use, in ms
--       then for each lock: owner id, ttl in ms
-- Answer  for each lock: 1 renewed, 0 not held by that owner (and nothing changed)
--
-- Danger: a heartbeat that lengthens a lease which is another owner's by now, or a replica's 'not
-- held' that is only old data. The owner id is compared in the same step; a 'not held' writes.

local answer = {}
for i = 1, #KEYS / 2 do
    local lock, fence = KEYS[2 * i - 1], KEYS[2 * i]
    local owner, ttl = ARGV[2 * i], ARGV[2 * i + 1]
    local holder = redis.pcall('HMGET', lock, 'owner', 'claim')
    if holder.err and not string.find(holder.err, 'WRONGTYPE', 1, true) then
        return holder
    end
    if holder[1] == owner then
        redis.call('PEXPIRE', lock, ttl)
        if holder[2] then
            -- A waiter's claim: now it is confirmed, and a full lease.
            redis.call('HDEL', lock, 'claim')
        end
        -- The fence's own time left tells when the last heartbeat came.
        redis.call('PEXPIRE', fence, ARGV[1])
        answer[i] = 1
    else
        -- A replica that lacks the key must say READONLY, not 'not yours'.
        local rest = redis.call('PTTL', fence)
        redis.call('PEXPIRE', fence, rest > 0 and rest or ARGV[1])
        answer[i] = 0
    end
end
return answer
