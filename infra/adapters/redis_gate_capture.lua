-- Shrinks a hold to what was charged, in any epoch, and frees its slots. Never grows one. Its tokens are those it was of.
local attempt, actual, tokens = given[2], given[3], given[4]
local hold = hold_of(attempt)
if not hold then
  return 0
end
release(hold, tokens)
local less = hold.amount - actual
if less > 0 then
  add_all(marked(hold.buckets, '#h'), -less)
  if hold.unconfirmed then
    add_all(marked(hold.buckets, '#u'), -less)
  end
  hold.amount = actual
end
keep(attempt, hold)
return 1
