# Sees the end of `clustering run` as the end of its input, and ends what that left behind, if it was killed. Until then it
# reads what to look after, a process group each: `+ 17`, and `- 17` when that has ended.

# The end may come by a signal to everybody: this one stays to clean up.
trap '' HUP INT QUIT TERM

kept=' '
while read -r sign group; do
    case $sign in
    +) kept="$kept$group " ;;
    -) kept="${kept%% "$group" *} ${kept#* "$group" }" ;;
    esac
done
for group in $kept; do
    # Not `kill -KILL -- -17`, which dash does not understand.
    kill -s KILL -- "-$group"
done
