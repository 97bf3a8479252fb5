-- Takes a lock that is free, or that the same owner id already holds.
--
-- KEYS  1 the lock   2 its fence (token counter and last holding)
-- ARGV  1 owner id   2 ttl in ms   3 app   4 name   5 instance   6 host   7 pid
--       8 how long the fence outlives its last use, in ms
-- Answer  {1, token, acquired at in ms}               it is ours
--         {0, time left in ms, now in ms, field, value, ...}  held by another
--         {2, time left in ms, type}                  something not ours is there
--
-- A script is not rolled back when it fails half-way (rule R3): the fence, whose
-- writing can fail (type, rights, memory), comes before the write that takes the lock.

local lock, fence, owner, ttl = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))

local kind = redis.call('TYPE', lock).ok
if kind ~= 'none' then
    -- A write that changes nothing, so that a replica or a server that can't write
    -- says so instead of answering from what it remembers.
    local rest = redis.call('PTTL', fence)
    redis.call('PEXPIRE', fence, rest > 0 and rest or ARGV[8])
    local left = redis.call('PTTL', lock)
    local holder = kind == 'hash' and redis.call('HGET', lock, 'owner')
    if not holder then
        return {2, left, kind}
    end
    if holder ~= owner then
        local answer = redis.call('HGETALL', lock)
        table.insert(answer, 1, now)
        table.insert(answer, 1, left)
        table.insert(answer, 1, 0)
        return answer
    end
    -- An acquire whose first answer was lost (rule R6).
    redis.call('PEXPIRE', lock, ttl)
    local mine = redis.call('HMGET', lock, 'token', 'acquired_at')
    return {1, mine[1], mine[2]}
end

-- The larger of (last token + 1) and the clock in microseconds (rule R8).
local last = redis.call('HGET', fence, 'token')
local token = tonumber(time[1]) * 1000000 + tonumber(time[2])
if last then
    local number = tonumber(last)
    if not (number and number >= 0) then
        return redis.error_reply('BADFENCE the last fencing token is ' .. string.format('%q', last))
    end
    token = math.max(number + 1, token)
end
if token > 9007199254740991 then
    return redis.error_reply('BADFENCE the fencing token is at its largest value')
end
token = string.format('%.0f', token)

redis.call('HSET', fence, 'token', token, 'last_owner', owner, 'last_instance', ARGV[5],
    'last_host', ARGV[6], 'last_pid', ARGV[7], 'last_from', now, 'last_ttl', ttl,
    'last_until', '', 'last_ending', '')
redis.call('PEXPIRE', fence, ARGV[8])
redis.call('HSET', lock, 'owner', owner, 'token', token, 'app', ARGV[3], 'name', ARGV[4],
    'instance', ARGV[5], 'host', ARGV[6], 'pid', ARGV[7], 'acquired_at', now, 'ttl', ttl)
redis.call('PEXPIRE', lock, ttl)
return {1, token, now}
