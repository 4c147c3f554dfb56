-- The rate limits of one admission, each claim {key, kind, limit, sharer}: what is in the way, taking, and what remains. `save`
-- is to follow whatever was asked: it writes how windows and shares are now.
--
-- A window is in `rates`: its entries are numbered, `first` to `next` - 1, of everything that was admitted within one GRAIN,
-- at the time of the last part of it. So no sixty seconds hold more than the limit, and a window is of bounded size.
--
-- A limit with sharers (keys that use it together) is shared as fair_share.py says, by the same names.
local BUSY_RETRY = 1
local BRIEFLY = 3000000

local function rate_limits(rates, tokens, now)
  local windows, shares = {}, {}
  local minute = math.floor(now / WINDOW)

  local function entry(key, number)
    local found = redis.call('HGET', RATES, key .. '#' .. text(number))
    if not found then
      return nil
    end
    local when, size = string.match(found, '^(%d+) (%d+)$')
    return tonumber(when), tonumber(size)
  end

  -- The window of a key, without what has left it.
  local function window_of(key)
    local window = windows[key]
    if window then
      return window
    end
    window = {first = 0, next = 0, total = 0, last = 0}
    local known = redis.call('HGET', RATES, key)
    if known then
      window.first, window.next, window.total, window.last = header(known)
      while window.first < window.next do
        local when, size = entry(key, window.first)
        if when > now - WINDOW then
          break
        end
        redis.call('HDEL', RATES, key .. '#' .. text(window.first))
        window.first, window.total, window.changed = window.first + 1, window.total - size, true
      end
    end
    windows[key] = window
    return window
  end

  local function taken(key)
    return tonumber(redis.call('HGET', SLOTS, key) or 0)
  end

  local function need(claim)
    return claim[2] == 'tokens' and tokens or 1
  end

  local function of_sharer(claim)
    return claim[1] .. '@' .. claim[4]
  end

  -- Seconds until `over` of the amount has left the window.
  local function room_in(key, window, over)
    for number = window.first, window.next - 1 do
      local when, size = entry(key, number)
      over = over - size
      if over <= 0 then
        return math.max(0.001, (when + WINDOW - now) / 1000000)
      end
    end
    return WINDOW / 1000000
  end

  -- The share of the one who asks in a limit, as of this minute.
  local function share_of(claim)
    local key, name = claim[1], of_sharer(claim)
    local known = redis.call('HMGET', SHARES, key .. '@', name)
    local all, one = all_of(known[1]), sharer_of(known[2])
    if all.minute ~= minute then
      local last = all.minute == minute - 1
      all.asked, all.hungry_before, all.modest_before =
        last and all.asking or 0, last and all.hungry or 0, last and all.modest or 0
      all.minute, all.asking, all.hungry, all.modest = minute, 0, 0, 0
    end
    if one.minute ~= minute then
      local last = one.minute == minute - 1
      one.before, one.wanted_before, one.hungry_before =
        last and one.used or 0, last and one.wanted or 0, last and one.hungry or 0
      one.minute, one.used, one.wanted, one.hungry = minute, 0, 0, 0
      all.asking, one.new = all.asking + 1, true
    end
    local share = {name = name, all = all, one = one}
    shares[key] = share
    return share
  end

  local function equal(all, limit)
    return limit / math.max(all.asking, all.asked)
  end

  local function want(all, one, amount)
    one.wanted = math.min(one.wanted + amount, MAX)
    if one.hungry == 0 then
      all.modest = math.min(all.modest + amount, MAX)
    end
  end

  local function fair_share(all, one, limit)
    local left, left_before = limit - all.modest, limit - all.modest_before
    if one.hungry == 0 then
      left = left + one.wanted
    end
    if one.hungry_before == 0 then
      left_before = left_before + one.wanted_before
    end
    left = left / (all.hungry + 1 - one.hungry)
    left_before = left_before / (all.hungry_before + 1 - one.hungry_before)
    return math.max(equal(all, limit), math.min(left, left_before))
  end

  -- Seconds until a sharer has less than `fair` in use, if it is let in no more.
  local function below_in(one, fair)
    local begin, used = minute * WINDOW, one.before
    if one.used >= fair then
      begin, used = begin + WINDOW, one.used
    else
      fair = fair - one.used
    end
    return used >= fair and math.max(0.001, (begin + WINDOW * (1 - fair / used) - now) / 1000000) or 0.001
  end

  local function in_use(claim, share)
    if claim[2] == 'concurrent' then
      return taken(share.name)
    end
    return share.one.used + share.one.before * (1 - (now - minute * WINDOW) / WINDOW)
  end

  -- Seconds until there may be room in the limit, nothing if there is.
  local function full(claim)
    if claim[2] == 'concurrent' then
      return taken(claim[1]) >= claim[3] and BUSY_RETRY
    end
    local window = window_of(claim[1])
    local over = window.total + need(claim) - claim[3]
    return over > 0 and room_in(claim[1], window, over)
  end

  -- The same for who has a share: `seconds` while it has less than that, and then also while others are short.
  local function in_turn(claim, share, seconds)
    local all, one, places = share.all, share.one, claim[2] == 'concurrent'
    local fair = fair_share(all, one, claim[3])
    if in_use(claim, share) < fair then
      if seconds then
        all.contended = math.max(all.contended, now + (places and BRIEFLY or seconds * 1000000 + WINDOW))
      end
      return seconds
    end
    if now >= all.contended then
      return seconds
    end
    local back = places and BUSY_RETRY or math.min(below_in(one, fair), (all.contended - now) / 1000000)
    return math.max(seconds or 0, back)
  end

  local function refuse_one(all, one, amount, limit)
    want(all, one, amount)
    if one.hungry == 0 and one.wanted >= equal(all, limit) then
      one.hungry, all.hungry, all.modest = 1, all.hungry + 1, math.max(0, all.modest - one.wanted)
    end
  end

  -- Seconds until there may be room for who asks, nothing if there is.
  local function wait(claim)
    local seconds = full(claim)
    if not claim[4] then
      return seconds
    end
    local share = share_of(claim)
    seconds = in_turn(claim, share, seconds)
    if seconds then
      refuse_one(share.all, share.one, need(claim), claim[3])
    end
    return seconds
  end

  -- Counts it from now on; where that is, so that it can be corrected.
  local function add(claim)
    local key, size = claim[1], need(claim)
    local window, share = window_of(key), claim[4] and shares[key]
    local grain, number, sum = math.floor(now / GRAIN), window.next, size
    if window.first < window.next and math.floor(window.last / GRAIN) == grain then
      number = window.next - 1
      local _, before = entry(key, number)
      sum = math.min(before + size, MAX)
    end
    redis.call('HSET', RATES, key .. '#' .. text(number), text(now) .. ' ' .. text(sum))
    redis.call('ZADD', IDLE, text(now + WINDOW), key)
    window.next, window.total = number + 1, math.min(window.total + size, MAX)
    window.last, window.changed = now, true
    if share then
      share.one.used = math.min(share.one.used + size, MAX)
      want(share.all, share.one, size)
    end
    return {key, number, grain, size, share and share.name or false, minute}
  end

  local function save_share(key, share)
    redis.call('HSET', SHARES, key .. '@', all_text(share.all), share.name, sharer_text(share.one))
    if share.one.new then
      local forgotten = text((minute + 2) * WINDOW)
      redis.call('ZADD', IDLE, 'GT', forgotten, key .. '@', forgotten, share.name)
    end
  end

  local limits = {}

  -- The number of the limit that is in the way and the seconds to wait: first one that this request can never pass (false),
  -- else of those that are full the one that is so longest. Nobody stands in line at those behind the first.
  function limits.in_the_way()
    for number, claim in ipairs(rates) do
      if need(claim) > claim[3] then
        return number, false
      end
    end
    local found, longest
    for number, claim in ipairs(rates) do
      local look = found and full or wait
      local seconds = look(claim)
      if seconds and (not found or seconds > longest) then
        found, longest = number, seconds
      end
    end
    return found, longest
  end

  -- Places among those under way, and where tokens are counted.
  function limits.take()
    local places, counts = {}, {}
    for _, claim in ipairs(rates) do
      if claim[2] == 'concurrent' then
        redis.call('HINCRBY', SLOTS, claim[1], 1)
        table.insert(places, claim[1])
        if claim[4] then
          redis.call('HINCRBY', SLOTS, of_sharer(claim), 1)
          table.insert(places, of_sharer(claim))
        end
      else
        local count = add(claim)
        if claim[2] == 'tokens' then
          table.insert(counts, count)
        end
      end
    end
    return places, counts
  end

  -- Per claim: what remains, and seconds until it is whole again.
  function limits.state()
    local found = {}
    for _, claim in ipairs(rates) do
      local remains, whole
      if claim[2] == 'concurrent' then
        remains, whole = claim[3] - taken(claim[1]), 0
      else
        local window = window_of(claim[1])
        remains = math.max(0, claim[3] - window.total)
        whole = window.first < window.next and math.max(0, (window.last + WINDOW - now) / 1000000) or 0
      end
      table.insert(found, {claim[1], claim[2], claim[3], remains, whole, claim[4] or false})
    end
    return found
  end

  function limits.save()
    for key, window in pairs(windows) do
      if window.changed then
        redis.call('HSET', RATES, key, header_of(window.first, window.next, window.total, window.last))
      end
    end
    for key, share in pairs(shares) do
      save_share(key, share)
    end
  end

  return limits
end
