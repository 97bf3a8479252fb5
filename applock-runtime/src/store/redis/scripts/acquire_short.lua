-- Takes locks that are free, or that the same owner id already holds.
--
-- Three texts make the script: this one, queue.lua, acquire.lua. Up to 32 locks of one process in a
-- call, one round trip. Stands after clock.lua.
--
-- KEYS  for each lock: the lock, its fence, its queue, its waiters
-- ARGV  for each lock: ttl in ms, the expiry of its fence in ms (ttl and remember), the text of the
--       lock from `,"owner"` on; and if any request of the call may wait, for each lock also
--       '' not to wait, or to wait in the queue: 'ticket run channel'
--       and if any request of the call is once per tick, for each lock also what an earlier run
--       forbids: '' nothing; else see `forbids` in queue.lua
--       ticket: of a place that it had, or '0'; run: '0' if this process does not listen on its
--       channel, or the run id of the server ('1': unknown)
-- Answer  of a single lock as it is, otherwise a list:
--         'token acquired at in ms'                             granted
--         {0, type of what is there, its time left in ms, now in microseconds, how many
--          wait, how many before us (-1: not in the queue), 1 if we are new there, our
--          ticket ('0': the one we brought), its text if it is a string}                  held by another
--         {2, ...}                                              see `forbids` in queue.lua
--         {-1, error}                                           not done
--
-- This part serves locks that are free and have no queue, for requests that no earlier run
-- forbids: most calls need no more, and return
-- before the rest of the script makes a single function. What it does not serve, for whatever
-- reason, it leaves as it was to `take` in acquire.lua.
--
-- Danger: a free lock that waiters queue for must not go to a request that comes by. So locks and
-- queues are asked for in one command.

-- The state and the last token, in a fence. Texts of one length are in the order of the numbers
-- (rule R8).
local LAST_TOKEN = '^{"applock":1,"state":"(%l+)", *"token":(%d+),'

local count = #KEYS / 4
local answers, is_done = {}, false
if count == 1 then
    if #ARGV < 5 and redis.call('EXISTS', KEYS[1], KEYS[3]) == 0 then
        -- A longer one is served by `take`.
        local fence = redis.pcall('GETRANGE', KEYS[2], '0', '2047')
        local state, last
        if type(fence) == 'string' then
            state, last = string.match(fence, LAST_TOKEN)
        end
        if fence == '' or last and #last == #micros and last < micros and #fence < 2048 then
            -- What the new fence keeps of the old one: see `keep_of` in queue.lua.
            local line, kept = string.find(fence, '\n', 60, true), ''
            if state == 'ok' then
                local third = line and string.find(fence, '\n', line + 1, true)
                kept = '\n{"noted_at":' .. now .. ',"left":' .. redis.call('PTTL', KEYS[2]) .. ','
                    .. string.sub(fence, 2, (line or 0) - 1)
                    .. (third and string.sub(fence, third) or '')
            elseif line then
                kept = string.sub(fence, line)
            end
            local text = '{"applock":1,"state":"held",     "token":' .. micros
                .. ',"acquired_at":' .. now .. ARGV[3]
            -- The fence, whose writing can fail (type, rights, memory), comes first (rule R3).
            local failed = redis.pcall('SET', KEYS[2], text .. kept, 'PX', ARGV[2]).err
                or redis.pcall('SET', KEYS[1], text, 'PX', ARGV[1]).err
            if not failed then
                return micros .. ' ' .. now
            end
        end
    end
else
    local main, beside = {}, {}
    for i = 1, #KEYS, 4 do
        main[#main + 1], beside[#beside + 1] = KEYS[i], KEYS[i + 1]
        main[#main + 1] = KEYS[i + 2]
    end
    local arguments, seen = #ARGV / count, {}
    local fences = arguments < 5 and redis.call('EXISTS', unpack(main)) == 0
        and redis.call('MGET', unpack(beside))
    is_done = true
    for at = 1, count do
        local lock, fence, arg = KEYS[4 * at - 3], KEYS[4 * at - 2], arguments * (at - 1)
        -- MGET finds nothing also where a key is no string: `take` tells the two apart. And a
        -- lock that stands in the call twice is free for the first request only.
        local old, state, last = fences and fences[at] or '', nil, nil
        if old ~= '' then
            state, last = string.match(old, LAST_TOKEN)
        end
        local failed = true
        if last and #last == #micros and last < micros and not seen[lock] then
            seen[lock] = true
            local text = '{"applock":1,"state":"held",     "token":' .. micros
                .. ',"acquired_at":' .. now .. ARGV[arg + 3]
            local line, kept = string.find(old, '\n', 60, true), ''
            if state == 'ok' then
                local third = line and string.find(old, '\n', line + 1, true)
                kept = '\n{"noted_at":' .. now .. ',"left":' .. redis.call('PTTL', fence) .. ','
                    .. string.sub(old, 2, (line or 0) - 1)
                    .. (third and string.sub(old, third) or '')
            elseif line then
                kept = string.sub(old, line)
            end
            failed = redis.pcall('SET', fence, text .. kept, 'PX', ARGV[arg + 2]).err
                or redis.pcall('SET', lock, text, 'PX', ARGV[arg + 1]).err
        end
        if failed then
            is_done = false
        else
            answers[at] = micros .. ' ' .. now
        end
    end
end
if is_done then
    return answers
end

