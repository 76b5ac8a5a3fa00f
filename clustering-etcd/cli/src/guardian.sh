# Outlives the process that started it, and cleans up what that process leaves behind. Reads resources from its input, one
# per line, until the input ends together with the process:
#
#   + pid 17        a process and its process group
#   + dir /tmp/x    a folder
#   + run COMMAND   anything else, with the shell command that removes it
#
# The same line with - instead of + takes a resource back that no longer exists.

# Signals that end the process may reach this shell too. Ignore them, in order to clean up.
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

# each KIND COMMAND...: runs the command for every resource of that kind.
each() {
    kind=$1
    shift
    for entry in $kept; do
        case $entry in
        "$kind "*) "$@" "${entry#"$kind "}" ;;
        esac
    done
}

kill_group() {
    # Not `kill -KILL -- -17`, which dash does not understand.
    kill -s KILL -- "-$1"
}

# Retries, because processes that were just killed may still write to the folder.
remove_folder() {
    tries=0
    while rm -rf -- "$1"; [ -e "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || return
        sleep 0.1
    done
}

set -f
IFS=$newline
each pid kill_group
each run eval
each dir remove_folder
