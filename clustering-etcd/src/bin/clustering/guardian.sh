# Sees the end of the command that started it as the end of its input, and ends and removes what that left behind, if it was
# killed. Until then it reads what to look after: a process group (`+ 17`, and `- 17` when that has ended) or a folder
# (`r /tmp/x`).

# The end may come by a signal to everybody: this one stays to clean up.
trap '' HUP INT QUIT TERM

groups=' '
folder=
while read -r sign what; do
    case $sign in
    +) groups="$groups$what " ;;
    -) groups="${groups%% "$what" *} ${groups#* "$what" }" ;;
    r) folder=$what ;;
    esac
done
for group in $groups; do
    # Not `kill -KILL -- -17`, which dash does not understand.
    kill -s KILL -- "-$group"
done
if [ -n "$folder" ]; then
    # What was killed a moment ago may still write there.
    for try in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf -- "$folder" && [ ! -e "$folder" ] && break
        sleep 0.1
    done
fi
