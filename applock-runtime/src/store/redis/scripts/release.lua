-- Ends a holding, if it is that owner's.
--
-- KEYS  1 the lock   2 its fence
-- ARGV  1 owner id   2 keep it taken for so many ms still (0: free at once)
--       3 how long the fence outlives its last use, in ms
-- Answer  1 ended, 0 not held by that owner (and nothing changed)

local lock, fence, owner, keep = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
local holder = redis.pcall('HGET', lock, 'owner')
if type(holder) == 'table' and not string.find(holder.err, 'WRONGTYPE', 1, true) then
    return holder
end
if holder ~= owner then
    -- A replica that lacks the key must say READONLY, not 'not yours'.
    local rest = redis.call('PTTL', fence)
    redis.call('PEXPIRE', fence, rest > 0 and rest or ARGV[3])
    return 0
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(time[2] / 1000)
local ended = string.format('%.0f', now + keep)
if keep > 0 then
    redis.call('PEXPIRE', lock, keep)
    -- It is nobody's now: a heartbeat that was on its way must not lengthen it.
    redis.pcall('HSET', lock, 'owner', owner .. ':kept', 'ttl', keep)
else
    redis.call('DEL', lock)
end
-- The record of how it ended is a courtesy: a server short of memory may refuse it.
redis.pcall('HSET', fence, 'last_until', ended, 'last_ending', 'released')
redis.pcall('PEXPIRE', fence, ARGV[3])
return 1
