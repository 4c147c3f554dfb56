-- What every script of the gate begins with. All state of a facts partition is in these ten keys (one hash slot), and
-- none of them ever expires. ARGV: the run_id of the server this connection talks to, and the arguments (MessagePack).
--
--   state     run, node, epoch, opened, watermark, pruned
--   budgets   <org>/<budget>/<bucket>#c #h #u: consumed, held, and the part of held that is unconfirmed;
--             <org>/<budget>: version and limit; `#`: nothing (see begin)
--   holds     attempt -> what it holds (see `keep`)       unlogged  <org>/<attempt> by accounted_at
--   once      key -> {request, accounted_at, outcome}     slots     concurrency taken, by rate key
--   rates     <key>: first, next, total, last; <key>#<n>: at, amount
--   shares    <key>@: of all who share a limit (see `all_of`); <key>@<sharer>: of one of them (see `sharer_of`)
--   due       b<bucket>, l<org>/<budget> (its limit) and o<once key> by the time they can be forgotten; idle: rate keys
--             and shares likewise
--
-- Times are microseconds since 1970, money is nano-dollars: whole numbers that a double holds exactly up to 2^53. What is
-- summed is summed by HINCRBY in 64 bits; only what is read into Lua saturates.
local STATE, BUDGETS, HOLDS, UNLOGGED, ONCE, SLOTS, RATES, DUE, IDLE, SHARES = unpack(KEYS)
local given = cmsgpack.unpack(ARGV[2])

local MAX = 9007199254740992
local WINDOW = 60000000
local GRAIN = 100000
local HOUR = 3600000000
local DAY = 24 * HOUR
-- Fields in one call: Lua passes some thousands of values at most.
local MANY = 2000

-- `..`, tostring and cjson lose digits from 1e14 on; adding 0 turns -0 into 0.
local function text(number)
  return string.format('%.0f', number + 0)
end

local function amount(value)
  return math.min(tonumber(value or 0), MAX)
end

local function clock()
  if given[1] then
    return given[1]
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A server that was restarted or promoted is not the one that `begin` wrote down: what it remembers is of the past.
local function state_of(run, epoch)
  local state = redis.call('HMGET', STATE, 'run', 'node', 'epoch', 'opened', 'watermark')
  local ours = state[1] == run and state[2] == ARGV[1] and tonumber(state[3]) == epoch
  return ours, state[4] == '1', tonumber(state[5])
end

local function add(field, number)
  local answer = redis.pcall('HINCRBY', BUDGETS, field, text(number))
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'overflow', 1, true) then
      error(answer.err)
    end
    redis.call('HSET', BUDGETS, field, '9223372036854775807')
  end
end

-- The values of fields of `budgets`, in few calls.
local function values_of(fields)
  local values = {}
  for from = 1, #fields, MANY do
    local some = redis.call('HMGET', BUDGETS, unpack(fields, from, math.min(from + MANY - 1, #fields)))
    for number, value in ipairs(some) do
      values[from + number - 1] = value
    end
  end
  return values
end

-- Adds `number` (or `number` of each field) to sums of different fields, in few calls; `values` is what they are, where that is
-- known. Sums that a double does not hold go one by one.
local function add_all(fields, number, values)
  values = values or values_of(fields)
  local each, sums = type(number) == 'table' and number, {}
  for place, field in ipairs(fields) do
    local old, more = tonumber(values[place] or 0), each and each[field] or number
    local sum = old + more
    if math.abs(old) < MAX and math.abs(sum) < MAX then
      sums[#sums + 1], sums[#sums + 2] = field, text(sum)
    else
      add(field, more)
    end
  end
  for from = 1, #sums, 2 * MANY do
    redis.call('HSET', BUDGETS, unpack(sums, from, math.min(from + 2 * MANY - 1, #sums)))
  end
end

local function marked(buckets, mark)
  local fields = {}
  for place, bucket in ipairs(buckets) do
    fields[place] = bucket .. mark
  end
  return fields
end

local function hold_of(attempt)
  local packed = redis.call('HGET', HOLDS, attempt)
  if not packed then
    return nil
  end
  local known = cmsgpack.unpack(packed)
  return {
    amount = known[1], org = known[2], buckets = known[3], slots = known[4], once = known[5],
    logged = known[6], unconfirmed = known[7], reply = known[8], counts = known[9] or {},
  }
end

local function keep(attempt, hold)
  redis.call('HSET', HOLDS, attempt, cmsgpack.pack({
    hold.amount, hold.org, hold.buckets, hold.slots or {}, hold.once, hold.logged, hold.unconfirmed, hold.reply,
    hold.counts or {},
  }))
end

-- The window of a rate limit without its entries.
local function header(known)
  local first, after, total, last = string.match(known, '^(%d+) (%d+) (%d+) (%d+)$')
  return tonumber(first), tonumber(after), tonumber(total), tonumber(last)
end

local function header_of(first, after, total, last)
  return string.format('%.0f %.0f %.0f %.0f', first, after, total, last)
end

local function numbers(known)
  local found = {}
  for each in string.gmatch(known, '%S+') do
    table.insert(found, tonumber(each))
  end
  return unpack(found)
end

-- What is known of all who share a limit: see fair_share.py.
local function all_of(known)
  local all = {}
  all.minute, all.asking, all.asked, all.hungry, all.hungry_before, all.modest, all.modest_before, all.contended =
    numbers(known or '-1 0 0 0 0 0 0 0')
  return all
end

local function all_text(all)
  return string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f %.0f', all.minute, all.asking, all.asked, all.hungry,
    all.hungry_before, all.modest, all.modest_before, all.contended)
end

-- What is known of one of them; if nothing, that is long ago.
local function sharer_of(known)
  local one = {}
  one.minute, one.used, one.before, one.wanted, one.wanted_before, one.hungry, one.hungry_before =
    numbers(known or '-2 0 0 0 0 0 0')
  return one
end

local function sharer_text(one)
  return string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f', one.minute, one.used, one.before, one.wanted,
    one.wanted_before, one.hungry, one.hungry_before)
end

local function correct_share(key, name, minute, more)
  local known = redis.call('HMGET', SHARES, key .. '@', name)
  if not (known[1] and known[2]) then
    return
  end
  local all, one, hungry = all_of(known[1]), sharer_of(known[2]), 1
  if one.minute == minute then
    one.used, one.wanted = math.max(0, one.used + more), math.max(0, one.wanted + more)
    hungry = one.hungry
  elseif one.minute == minute + 1 then
    one.before, one.wanted_before = math.max(0, one.before + more), math.max(0, one.wanted_before + more)
    hungry = one.hungry_before
  end
  if hungry == 0 and all.minute == minute then
    all.modest = math.max(0, all.modest + more)
  elseif hungry == 0 and all.minute == minute + 1 then
    all.modest_before = math.max(0, all.modest_before + more)
  end
  redis.call('HSET', SHARES, key .. '@', all_text(all), name, sharer_text(one))
end

-- The tokens that a hold turned out to be of: where they were counted, unless that has left the window and its number, maybe,
-- has been used again.
local function count_tokens(hold, tokens)
  for _, count in ipairs(hold.counts) do
    local key, field = count[1], count[1] .. '#' .. text(count[2])
    local more = tokens - count[4]
    local known = redis.call('HMGET', RATES, key, field)
    if known[1] and known[2] then
      local first, after, total, last = header(known[1])
      local when, size = string.match(known[2], '^(%d+) (%d+)$')
      if math.floor(tonumber(when) / GRAIN) == count[3] then
        redis.call('HSET', RATES,
          key, header_of(first, after, math.max(0, total + more), last),
          field, when .. ' ' .. text(math.max(0, tonumber(size) + more)))
      end
    end
    if count[5] then
      correct_share(key, count[5], count[6], more)
    end
  end
  hold.counts = {}
end

-- It is not under way any more, and was of so many tokens, if that is known.
local function release(hold, tokens)
  for _, key in ipairs(hold.slots) do
    if redis.call('HINCRBY', SLOTS, key, -1) <= 0 then
      redis.call('HDEL', SLOTS, key)
    end
  end
  hold.slots = {}
  if tokens then
    count_tokens(hold, tokens)
  end
end
