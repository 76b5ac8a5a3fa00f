# Outlives the test process that started it, whose end it sees as the end of its input, and ends and removes what that
# process left behind. Until then it reads what to look after, a line each:
#
#   + pid 17     + dir /tmp/x     + container NAME     and the same with - when it is gone
#
# The end may come by a signal to everybody: this one stays to clean up.
trap '' HUP INT QUIT TERM PIPE

newline='
'
kept=$newline
while IFS= read -r line; do
    entry=${line#? }
    case $line in
    +*) kept=$kept$entry$newline ;;
    -*)
        case $kept in
        *"$newline$entry$newline"*)
            kept=${kept%%"$newline$entry$newline"*}$newline${kept#*"$newline$entry$newline"}
            ;;
        esac
        ;;
    esac
done

# each KIND COMMAND...: runs the command for everything of that kind.
each() {
    kind=$1
    shift
    for entry in $kept; do
        case $entry in
        "$kind "*) "$@" "${entry#"$kind "}" ;;
        esac
    done
}

# The process with all that it started, which is in its process group.
end() {
    # Not `kill -KILL -- -17`, which dash does not understand.
    kill -s KILL -- "-$1"
}

# What was killed a moment ago may still write there.
remove_folder() {
    tries=0
    while rm -rf -- "$1"; [ -e "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || return
        sleep 0.1
    done
}

# The engine may still be at work on what it was told last.
remove_container() {
    for try in 1 2 3; do
        docker rm --force --volumes -- "$1"
        docker container inspect -- "$1" || return
        sleep 1
    done
}

set -f
IFS=$newline
each pid end
each container remove_container
each dir remove_folder
