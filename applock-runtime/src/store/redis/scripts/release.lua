-- Ends holdings, each if the lock is that owner's, and hands the locks to their waiters. A
-- request that does not hold the lock leaves the wait queue.
--
-- Stands after queue.lua. Up to 32 locks of one process in a call, one round trip.
--
-- KEYS  for each lock: the lock, its fence, its queue, its waiters
-- ARGV  1 how long a fence outlives its last use, in ms   2 the channel of this process
--       then for each lock: owner id, keep it taken for so many ms still (0: free at once)
-- Answer  for each lock:
--         1 ended, 0 not held by that owner (which has left the queue, if it stood there)
--         {owner id, token, acquired at in ms, the same in microseconds, claim in ms}
--                       ended, and handed to a waiter of this process, which learns of its
--                       grant by this answer alone
--         {-1, error}   not done
--
-- Danger: a lock that stays taken because something beside it is damaged. A release by
-- the holder always frees the lock, whatever the queue and the fence hold.

local fence_ttl, own_channel = ARGV[1], ARGV[2]

-- The lock is not that owner's, or the server did not say: `holder` is another owner id, `false`,
-- or an error.
local function refuse(holder, fence, queue, waiters, owner)
    if type(holder) == 'table' and not string.find(holder.err, 'WRONGTYPE', 1, true) then
        fail(holder.err)
    end
    -- A replica that lacks the key must say READONLY, not 'not yours'.
    local rest = redis.call('PTTL', fence)
    redis.call('PEXPIRE', fence, rest > 0 and rest or fence_ttl)
    if redis.call('ZREM', queue, owner) > 0 then
        if redis.call('EXISTS', queue) > 0 then
            redis.call('HDEL', waiters, owner)
        else
            -- The last waiter leaves nothing behind.
            redis.call('DEL', waiters)
        end
    end
    return 0
end

-- `first`: what ZPOPMIN took out of the queue. Answers who is served, its token and its claim.
local function hand_over(lock, fence, queue, waiters, first)
    local token = next_token(fence)
    local served, claim = wait_queue().serve(lock, fence, queue, waiters, fence_ttl, own_channel,
        nil, token, first)
    return served, token, claim
end

local function end_holding(lock, fence, queue, waiters, owner, keep)
    local holder = redis.pcall('HGET', lock, 'owner')
    if holder ~= owner then
        return refuse(holder, fence, queue, waiters, owner)
    end
    local ended = now
    if keep ~= '0' then
        ended = whole(now + keep)
        redis.call('PEXPIRE', lock, keep)
        -- No owner id holds it now: a heartbeat that was on its way must not lengthen it.
        redis.pcall('HSET', lock, 'owner', owner .. ':kept', 'ttl', keep)
        redis.pcall('HDEL', lock, 'claim')
    else
        local first = redis.pcall('ZPOPMIN', queue)
        if not first[1] then
            redis.call('DEL', lock, waiters)
        else
            local done, served, token, claim = pcall(hand_over, lock, fence, queue, waiters, first)
            if done and served then
                return claim and {served, token, now, micros, claim} or 1
            end
            -- Whatever is wrong with the queue, the lock is free; unless it went to a waiter
            -- that may have been notified already.
            if redis.call('HGET', lock, 'owner') == owner then
                redis.call('DEL', lock)
            end
        end
    end
    -- The record of how it ended is a courtesy: a server short of memory may refuse it.
    redis.pcall('HSET', fence, 'ended', owner .. ' released ' .. ended)
    return 1
end

return for_each(end_holding, 2, 2)
