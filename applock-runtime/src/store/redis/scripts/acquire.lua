-- The rest of the acquire: what acquire_short.lua, where keys, arguments and answers are explained,
-- has not served.

-- One lock, whatever stands there.
local function take(at)
    local lock, queue = KEYS[at], KEYS[count + at]
    local waiters, fence = KEYS[2 * count + at], KEYS[3 * count + at]
    local ttl, fence_ttl, wait, tail, due = ARGV[1], ARGV[2], ARGV[3], ARGV[at + 3], ''
    if not is_shared then
        local step = #ARGV / count
        local arg = step * (at - 1)
        ttl, fence_ttl, tail = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
        wait, due = step > 3 and ARGV[arg + 4] or '', step > 4 and ARGV[arg + 5] or ''
    end
    local owner = string.match(tail, '^{"applock":1,"state":"held", *"owner":"(%x+)"')
    local text, kind = read_text(lock)
    local state, holder, token, acquired = read(text)
    if holder == owner and state ~= 'kept' then
        -- The answer to an earlier acquire was lost (rule R6), or the notification of a grant:
        -- the same holding, with a full lease and its own token.
        confirm(lock, fence, state, ttl, text)
        return token .. ' ' .. acquired
    end
    if due ~= '' then
        local before, left, fence_text = forbids(fence, due, nil)
        if before then
            touch(fence)
            leave(queue, waiters, owner)
            return {2, before, now, left, fence_text, holder or ''}
        end
    end
    local waits, ahead, new, ticket, waiting = wait ~= '', -1, 0, '0', nil
    -- A fence that can't be read is found out before the request stands in the queue.
    local token = kind == 'none' and next_token(fence)
    if token and redis.call('EXISTS', queue) == 0 then
        grant(lock, fence, token, ttl, fence_ttl, tail, HELD, due)
        return token .. ' ' .. now
    end
    if token then
        note_missed_claim(fence, waiters)
    end
    if waits then
        if state == 'held' then
            -- Before the request stands in the queue, so that no release overlooks it.
            redis.call('SETRANGE', lock, STATE_AT, AWAITED)
        end
        local known, run, channel = string.match(wait, '^(%d+) (%w+) (.*)$')
        ahead, new, ticket, waiting = join(queue, waiters, owner, ttl, fence_ttl, tail, known,
            channel, run, due)
    end
    if token then
        -- No own channel: the answer has no room for a grant to another waiter of this
        -- process, so that one is notified by a message like any other.
        local served = serve(lock, fence, queue, waiters, '', owner, token, nil,
            redis.call('ZPOPMIN', queue))
        if not served then
            -- All waiters are out of reach, and this request does not wait.
            grant(lock, fence, token, ttl, fence_ttl, tail, AWAITED, due)
        end
        if not served or served == owner then
            return token .. ' ' .. now
        end
        text, kind = read_text(lock)
        waiting, holder = nil, served
        ahead = waits and redis.call('ZRANK', queue, owner) or -1
    elseif not waits then
        touch(fence)
    end
    -- A text that is none of ours may be long, and its beginning says enough.
    text = holder and text or string.sub(text, 1, 80)
    return {0, kind, redis.call('PTTL', lock), micros, waiting or redis.call('ZCARD', queue), ahead,
        new, ticket, text}
end

answers = answers or {}
for at = 1, count do
    answers[at] = answers[at] or one(take, at)
end
return all(answers)
