# Switches the pump on and stays with it. Run twice, it would say so twice in pump.log.
sleep 60 &
echo "pump on, switched by processes $$ $!" >> pump.log
wait
