-- Takes locks that are free, or that the same owner id already holds.
--
-- Stands after queue.lua. Up to 32 locks of one process in a call, one round trip.
--
-- KEYS  for each lock: the lock, its fence, its queue, its waiters
-- ARGV  for each lock: owner id, ttl in ms, remember in ms, the text of the lock from `remember`
--       on, and '' not to wait, or to wait in the queue: 'ticket run channel'
--       ticket: of a place that it had, or '0'; run: '0' if this process does not listen on its
--       channel, or the run id of the server ('1': unknown)
-- Answer  for each lock:
--         'token acquired at in ms'                             granted
--         {0, type of what is there, its time left in ms, now in microseconds, how many
--          wait, how many before us (-1: not in the queue), our ticket if we are new there
--          or '0', its text if it is a string}                  held by another
--         {-1, error}                                           not done
--
-- Danger: a free lock that waiters queue for must not go to a request that comes by. So
-- the short path, free locks without queues, asks for locks and queues in one command. All else
-- goes one by one through `take`, also a lock that stands in the call twice.

-- One lock that is free and has no queue: most calls are this one, and make no function.
if #KEYS == 4 and redis.call('EXISTS', KEYS[1], KEYS[3]) == 0 then
    local last = redis.pcall('GET', KEYS[2])
    local number = type(last) == 'string'
        and tonumber((string.match(last, LAST_TOKEN)))
    if not last or number and number < tonumber(micros) then
        local text = '{"applock":1,"owner":"' .. ARGV[1] .. '","token":' .. micros
            .. ',"acquired_at":' .. now .. ARGV[4]
        -- The fence, whose writing can fail (type, rights, memory), comes first (rule R3).
        local failed = redis.pcall('SET', KEYS[2], text, 'PX', ARGV[2] + ARGV[3]).err
            or redis.pcall('SET', KEYS[1], text, 'PX', ARGV[2]).err
        if not failed then
            return {micros .. ' ' .. now}
        end
        local rest = make_rest()
        return rest.all({rest.failed({err = failed})})
    end
end

local rest = nil

-- One lock, whatever stands there.
local function take(at)
    local lock, fence, queue, waiters = unpack(KEYS, 4 * at - 3, 4 * at)
    local owner, ttl, remember, tail, wait = unpack(ARGV, 5 * at - 4, 5 * at)
    local text, kind = redis.pcall('GET', lock), 'string'
    if type(text) == 'table' then
        -- Another program's key counts as held; a string that can't be read is an error.
        kind = redis.call('TYPE', lock).ok
        if kind == 'string' then
            rest.fail(text.err)
        end
        text = ''
    elseif not text then
        text, kind = '', 'none'
    end
    local phase, holding, holder = rest.read(text)
    if holder == owner and not rest.is_kept(phase) then
        -- The answer to an earlier acquire was lost (rule R6), or the notification of a grant:
        -- the same holding, with a full lease and its own token.
        rest.confirm(lock, fence, phase, holding, ttl, remember)
        return string.match(holding, '"token":(%d+)') .. ' '
            .. string.match(holding, '"acquired_at":(%d+)')
    end
    local waits, new, count, ahead = wait ~= '', '0', nil, -1
    -- A fence that can't be read is found out before the request stands in the queue.
    local token = kind == 'none' and rest.next_token(fence)
    if token and redis.call('EXISTS', queue) == 0 then
        rest.grant(lock, fence, token, owner, ttl, remember, tail, nil)
        return token .. ' ' .. now
    end
    if waits then
        local ticket, run, channel = string.match(wait, '^(%d+) (%w+) (.*)$')
        new, count, ahead = rest.join(queue, waiters, owner, ttl, remember, tail, ticket, channel,
            run)
    end
    if token then
        -- No own channel: the answer has no room for a grant to another waiter of this
        -- process, so that one is notified by a message like any other.
        local served = rest.serve(lock, fence, queue, waiters, '', owner, token,
            redis.call('ZPOPMIN', queue))
        if not served then
            -- All waiters are dead or out of reach, and this request does not wait.
            rest.grant(lock, fence, token, owner, ttl, remember, tail, nil)
        end
        if not served or served == owner then
            return token .. ' ' .. now
        end
        kind, text, count = 'string', redis.call('GET', lock), nil
        ahead = waits and redis.call('ZRANK', queue, owner) or -1
    elseif not waits then
        rest.touch(fence)
    end
    -- A text that is none of ours may be long, and its beginning says enough.
    text = (holder or token) and text or string.sub(text, 1, 80)
    return {0, kind, redis.call('PTTL', lock), micros, count or redis.call('ZCARD', queue), ahead,
        new, text}
end

local count = #KEYS / 4
local fences = nil
if count > 1 then
    local main, beside = {}, {}
    for i = 1, #KEYS, 4 do
        main[#main + 1], beside[#beside + 1] = KEYS[i], KEYS[i + 1]
        main[#main + 1] = KEYS[i + 2]
    end
    fences = redis.call('EXISTS', unpack(main)) == 0 and redis.call('MGET', unpack(beside))
end

local answers, seen = {}, {}
for at = 1, count do
    local key, arg = 4 * at - 3, 5 * at - 4
    -- MGET finds nothing also where a key is no string: `take` tells the two apart.
    local lock, last = KEYS[key], fences and fences[at]
    local number = last and tonumber((string.match(last, LAST_TOKEN)))
    if number and number < tonumber(micros) and not seen[lock] then
        seen[lock] = true
        local text = '{"applock":1,"owner":"' .. ARGV[arg] .. '","token":' .. micros
            .. ',"acquired_at":' .. now .. ARGV[arg + 3]
        -- The fence, whose writing can fail (type, rights, memory), comes first (rule R3).
        local failed = redis.pcall('SET', KEYS[key + 1], text, 'PX', ARGV[arg + 1] + ARGV[arg + 2]).err
            or redis.pcall('SET', lock, text, 'PX', ARGV[arg + 1]).err
        if failed then
            rest = rest or make_rest()
            answers[at] = rest.failed({err = failed})
        else
            answers[at] = micros .. ' ' .. now
        end
    else
        rest = rest or make_rest()
        answers[at] = rest.one(take, at)
    end
end
return rest and rest.all(answers) or answers
