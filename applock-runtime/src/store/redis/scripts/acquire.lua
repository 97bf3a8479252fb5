-- Takes locks that are free, or that the same owner id already holds.
--
-- Stands after queue.lua. Up to 32 locks of one process in a call, one round trip.
--
-- KEYS  for each lock: the lock, its fence, its queue, its waiters
-- ARGV  1 how long a fence outlives its last use, in ms   2 the channel of this process
--       3 '0' if it does not listen there, or the run id of the server ('1': unknown)
--       4 instance   5 host   6 pid
--       then for each lock: owner id, ttl in ms, app, name, and '' not to wait, or to
--       stand in the wait queue: the ticket of a place it had, or '0'
-- Answer  for each lock:
--         'token acquired at in ms'                             granted
--         {0, type of what is there, its time left in ms, now in microseconds, how many
--          wait, how many before us (-1: not in the queue), our ticket if we are new there
--          or '0', {field, value, ...}}                         held by another
--         {-1, error}                                           not done
--
-- Danger: a free lock that waiters queue for must not go to a request that comes by. So
-- the short path, a free lock, asks for lock and queue in one command.

local fence_ttl, own_channel, run, instance, host, pid = unpack(ARGV, 1, 6)

-- The lock is taken, or a request waits for it.
local function contend(lock, fence, queue, waiters, owner, ttl, app, name, ticket)
    local fields, kind, mine = redis.pcall('HGETALL', lock), 'hash', false
    if fields.err then
        -- Another program's key counts as held; a hash that can't be read is an error.
        kind = redis.call('TYPE', lock).ok
        if kind == 'hash' then
            fail(fields.err)
        end
        fields = {}
    elseif not fields[1] then
        kind = 'none'
    end
    for i = 1, #fields, 2 do
        mine = mine or fields[i] == 'owner' and fields[i + 1] == owner
    end
    if mine then
        -- The answer to an earlier acquire was lost (rule R6), or the notification of a grant:
        -- the same holding, with a full lease and its own token.
        redis.call('PEXPIRE', lock, ttl)
        redis.call('HDEL', lock, 'claim')
        local held = redis.call('HMGET', lock, 'token', 'acquired_at')
        return held[1] .. ' ' .. held[2]
    end
    local waits, new, count, ahead = ticket ~= '', '0', nil, -1
    -- A fence that can't be read is found out before the request stands in the queue.
    local token = kind == 'none' and next_token(fence)
    if waits then
        new, count, ahead = wait_queue().join(queue, waiters, owner, ttl, ticket, own_channel,
            run, app, name, instance, host, pid)
    end
    if token then
        -- No own channel: the answer has no room for a grant to another waiter of this
        -- process, so that one is notified by a message like any other.
        local served = wait_queue().serve(lock, fence, queue, waiters, fence_ttl, '', owner,
            token, redis.call('ZPOPMIN', queue))
        if not served then
            -- All waiters are dead or out of reach, and this request does not wait.
            grant(lock, fence, fence_ttl, token, owner, ttl, nil, app, name, instance, host, pid)
        end
        if not served or served == owner then
            return token .. ' ' .. now
        end
        kind, fields, count = 'hash', redis.call('HGETALL', lock), nil
        ahead = waits and redis.call('ZRANK', queue, owner) or -1
    elseif not waits then
        -- A write that changes nothing, so that a replica or a server that can't write
        -- says so, and does not answer from what it remembers.
        local rest = redis.call('PTTL', fence)
        redis.call('PEXPIRE', fence, rest > 0 and rest or fence_ttl)
    end
    return {0, kind, redis.call('PTTL', lock), micros, count or redis.call('ZCARD', queue), ahead,
        new, fields}
end

local function take(lock, fence, queue, waiters, owner, ttl, app, name, ticket)
    if redis.call('EXISTS', lock, queue) > 0 then
        return contend(lock, fence, queue, waiters, owner, ttl, app, name, ticket)
    end
    local token = next_token(fence)
    grant(lock, fence, fence_ttl, token, owner, ttl, nil, app, name, instance, host, pid)
    return token .. ' ' .. now
end

return for_each(take, 6, 5)
