-- The rest of the release: what release_short.lua, where keys, arguments and answers are explained,
-- has not served.

-- One lock, whatever stands there.
local function end_holding(at)
    local lock, waiters = KEYS[at], KEYS[count + at]
    local queue, fence = KEYS[2 * count + at], KEYS[3 * count + at]
    local own_channel, arg = ARGV[1], is_shared and 1 or 3 * at - 2
    local ending, keep = string.match(ARGV[arg + 2], '^(....................)(%d*)$')
    local owner = string.match(ARGV[is_shared and at + 3 or arg + 3], '"owner":"(%x+)$')
    local text = read_text(lock)
    local state, holder = read(text)
    if holder ~= owner or state == 'kept' then
        -- A replica that lacks the key must say READONLY, not 'not yours'.
        touch(fence)
        leave(queue, waiters, owner)
        return 0
    end
    -- Not what the request says: see `holding_of`.
    local remember = remembered(text)
    if keep ~= '' then
        redis.call('PEXPIRE', lock, keep)
        -- No owner id holds it now: a heartbeat that was on its way must not lengthen it.
        local kept = string.gsub(string.sub(text, STATE_END + 1), '"ttl":%d+', '"ttl":' .. keep, 1)
        redis.pcall('SET', lock, '{"applock":1,' .. KEPT .. kept, 'PX', keep)
        note_end(fence, ending, remember + keep)
        return 1
    end
    local first = redis.pcall('ZPOPMIN', queue)
    if not first[1] then
        redis.call('DEL', lock, waiters)
    else
        local done, served, token, claim = pcall(function()
            local ended = string.match(ending, '"(%l+)",')
            local token = next_token(fence, ended)
            local served, claim = serve(lock, fence, queue, waiters, own_channel, nil, token,
                ended, first)
            return served, token, claim
        end)
        if done and served then
            return claim and {served, token, now, micros, claim} or 1
        end
        -- Whatever is wrong with the queue, the lock is free; unless it went to a waiter
        -- that may have been notified already.
        local _, left = read((read_text(lock)))
        if left == owner then
            redis.call('DEL', lock)
        end
    end
    note_end(fence, ending, remember)
    return 1
end

answers = answers or {}
for at = 1, count do
    answers[at] = answers[at] or one(end_holding, at)
end
return all(answers)
