-- The rest of the acquire: what acquire_short.lua, where keys, arguments and answers are explained,
-- has not served.

-- One lock, whatever stands there.
local function take(at)
    local lock, fence, queue, waiters = unpack(KEYS, 4 * at - 3, 4 * at)
    local arguments = #ARGV / count
    local arg = arguments * (at - 1)
    local ttl, fence_ttl, tail = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local wait, due = arguments > 3 and ARGV[arg + 4] or '', arguments > 4 and ARGV[arg + 5] or ''
    local owner = string.match(tail, '^,"owner":"(%x+)"')
    local text, kind = read_text(lock)
    local state, holding, token, acquired, holder = read(text)
    if holder == owner and state ~= 'kept' then
        -- The answer to an earlier acquire was lost (rule R6), or the notification of a grant:
        -- the same holding, with a full lease and its own token.
        confirm(lock, fence, state, ttl, fence_ttl)
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
        grant(lock, fence, token, ttl, fence_ttl, tail, nil, due)
        return token .. ' ' .. now
    end
    if token then
        note_missed_claim(fence, waiters)
    end
    if waits then
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
            grant(lock, fence, token, ttl, fence_ttl, tail, nil, due)
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

for at = 1, count do
    answers[at] = answers[at] or one(take, at)
end
return all(answers)
